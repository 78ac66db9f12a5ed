"""COCO's images train2014 (82,783 JPEG files, 13 GB), kept as the one zip archive that it is."""

from featherseg.data.spec import RawSpec, open_archive

SPEC = RawSpec(
    name="coco_train2014",
    title="COCO train2014, images",
    source="https://cocodataset.org/#download",
    licence="as Flickr's terms of use say",
    citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
    archives=(open_archive("coco_train2014", "http://images.cocodataset.org/zips/train2014.zip"),),
    unpack=False,
)
