"""RefCOCO+: as RefCOCO, but words of place were forbidden."""

from featherseg.data.raw.spec import ReferringSpec, refer_archive

SPEC = ReferringSpec(
    name="refcoco_plus",
    title="RefCOCO+",
    source="https://github.com/lichengunc/refer",
    licence="as REFER's page says; the images as COCO's terms say",
    citation="Yu et al., Modeling Context in Referring Expressions, ECCV 2016",
    archives=(refer_archive("refcoco_plus", "refcoco+.zip"),),
    folder="refcoco+",
    split_by="unc",
    sizes={"train": 42278, "val": 3805, "testA": 1975, "testB": 1798},
)
