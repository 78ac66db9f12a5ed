"""RefCOCO: expressions collected in a two-player game; testA asks for people, testB for other objects."""

from featherseg.data.raw.spec import ReferringSpec, refer_archive

SPEC = ReferringSpec(
    name="refcoco",
    title="RefCOCO",
    source="https://github.com/lichengunc/refer",
    licence="as REFER's page says; the images as COCO's terms say",
    citation="Yu et al., Modeling Context in Referring Expressions, ECCV 2016",
    archives=(refer_archive("refcoco", "refcoco.zip"),),
    folder="refcoco",
    split_by="unc",
    sizes={"train": 42404, "val": 3811, "testA": 1975, "testB": 1810},
)
