"""RefCOCOg (G-Ref): longer expressions, written without a game; UMD's split keeps images apart."""

from featherseg.data.raw.spec import ReferringSpec, refer_archive

SPEC = ReferringSpec(
    name="refcocog_umd",
    title="RefCOCOg (G-Ref), UMD split",
    source="https://github.com/lichengunc/refer",
    licence="as REFER's page says; the images as COCO's terms say",
    citation="Mao et al., Generation and Comprehension of Unambiguous Object Descriptions, CVPR 2016; "
             "split of Nagaraja et al., ECCV 2016",
    archives=(refer_archive("refcocog_umd", "refcocog.zip"),),
    folder="refcocog",
    split_by="umd",
    sizes={"train": 42226, "val": 2573, "test": 5023},
)
