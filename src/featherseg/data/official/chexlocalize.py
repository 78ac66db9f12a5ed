"""CheXlocalize: chest X-rays with the outlines of ten findings (by request)."""

from featherseg.data.spec import DatasetSpec

_PAGE = "https://stanfordaimi.azurewebsites.net/datasets/23c56a0d-15de-405b-87c8-99c30138950c"

SPEC = DatasetSpec(
    name="chexlocalize",
    title="CheXlocalize",
    source=_PAGE,
    licence="by agreement, as its page says",
    citation="Saporta et al., Benchmarking saliency methods for chest X-ray interpretation, Nature Machine "
             "Intelligence 2022",
    how=f"is given on request: register at {_PAGE}",
    target="finding",
)
