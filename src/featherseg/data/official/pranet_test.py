"""PraNet's bundle of polyp test sets, from which CVC-300, ColonDB and ETIS are read."""

from featherseg.data.raw.spec import RawSpec

_PAGE = "https://drive.google.com/file/d/1Y2z7FD5p5y31vkZwQQomXFRB0HutHyao/view"

SPEC = RawSpec(
    name="pranet_test",
    title="PraNet's polyp test bundle",
    source="https://github.com/DengPingFan/PraNet",
    licence="as each set's page says",
    citation="Fan et al., PraNet: Parallel Reverse Attention Network for Polyp Segmentation, MICCAI 2020",
    how=f"is on a file share: download TestDataset.zip from {_PAGE}",
)
