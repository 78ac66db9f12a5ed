"""RefCOCOg (G-Ref) in Google's split, which keeps objects apart but not images; its test set was never published."""

from featherseg.data.raw.spec import ReferringSpec, refer_archive

SPEC = ReferringSpec(
    name="refcocog_google",
    title="RefCOCOg (G-Ref), Google split",
    source="https://github.com/lichengunc/refer",
    licence="as REFER's page says; the images as COCO's terms say",
    citation="Mao et al., Generation and Comprehension of Unambiguous Object Descriptions, CVPR 2016",
    archives=(refer_archive("refcocog_google", "refcocog.zip"),),
    folder="refcocog",
    split_by="google",
    sizes={"train": 44822, "val": 5000},
)
