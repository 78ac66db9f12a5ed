"""CAMUS: cardiac ultrasound of 500 patients with three structures an image (account needed)."""

from featherseg.data.spec import DatasetSpec

_PAGE = "https://humanheart-project.creatis.insa-lyon.fr/database/#collection/6373703d73e9f0047faa1bc8"

SPEC = DatasetSpec(
    name="camus",
    title="CAMUS",
    source=_PAGE,
    licence="as its page says",
    citation="Leclerc et al., Deep Learning for Segmentation using an Open Large-Scale Dataset in 2D "
             "Echocardiography, TMI 2019",
    how=f"is downloaded by hand from {_PAGE}",
    target="heart structure",
)
