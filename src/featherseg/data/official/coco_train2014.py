"""COCO's images train2014 (82,783 JPEG files, 13 GB), kept as the one zip archive that it is."""

from featherseg.data.raw.spec import RawSpec, open_archive

SPEC = RawSpec(
    name="coco_train2014",
    title="COCO train2014, images",
    source="https://cocodataset.org/#download",
    licence="as Flickr's terms of use say",
    citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014",
    # the bucket behind images.cocodataset.org, which itself has no certificate; the checksum is the one that TensorFlow
    # Datasets keeps in url_checksums/coco2014.txt
    archives=(open_archive("coco_train2014", "https://s3.amazonaws.com/images.cocodataset.org/zips/train2014.zip",
                           "ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775"),),
    unpack=False,
)
