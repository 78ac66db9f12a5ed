"""CVC-300 (the test images of EndoScene): 60 colonoscopy frames with polyp masks, for testing only."""

from pathlib import Path

from featherseg.data.folder.lists import Entry
from featherseg.data.raw.layout import find_folder, images_and_masks
from featherseg.data.raw.spec import DatasetSpec, medvlsm_lists

_FOLDER = "TestDataset/CVC-300"


def files(raw: Path) -> list[Entry]:
    """Every image of the folder, since the published lists are those of ColonDB."""
    paths = sorted(find_folder(raw, f"{_FOLDER}/images").glob("[!.]*.png"))
    return [Entry(str(path), path.name, path.name, "test") for path in paths]


SPEC = DatasetSpec(
    name="cvc300",
    title="CVC-300",
    source="https://github.com/DengPingFan/PraNet",
    licence="for research, as the authors' page says",
    citation="Vazquez et al., A Benchmark for Endoluminal Scene Segmentation of Colonoscopy Images, Journal of "
             "Healthcare Engineering 2017",
    lists=medvlsm_lists(
        "cvc300", "cvc300_polyp",
        train="1364331bdff303d94d7d06828ed637d8da965ac38cab2a9e6da11ba136f08f7d",
        val="4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
        test="a05004170f4b777e28b6124097ced8f72014bc87e9a2d84b606b2d5abc1ced39",
    ),
    target="polyp",
    field="endoscopy",
    layout=images_and_masks(_FOLDER),
    files=files,
    test_only=True,
    images="pranet_test",
    threshold=128,
)
