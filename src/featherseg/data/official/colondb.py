"""CVC-ColonDB: 380 colonoscopy frames with polyp masks, for testing only."""

from featherseg.data.raw.layout import images_and_masks
from featherseg.data.raw.spec import DatasetSpec, medvlsm_lists

SPEC = DatasetSpec(
    name="colondb",
    title="CVC-ColonDB",
    source="https://github.com/DengPingFan/PraNet",
    licence="for research, as the authors' page says",
    citation="Tajbakhsh et al., Automated Polyp Detection in Colonoscopy Videos Using Shape and Context "
             "Information, TMI 2016",
    lists=medvlsm_lists(
        "colondb", "colondb_polyp",
        train="1364331bdff303d94d7d06828ed637d8da965ac38cab2a9e6da11ba136f08f7d",
        val="4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
        test="a05004170f4b777e28b6124097ced8f72014bc87e9a2d84b606b2d5abc1ced39",
    ),
    target="polyp",
    field="endoscopy",
    layout=images_and_masks("TestDataset/CVC-ColonDB"),
    test_only=True,
    images="pranet_test",
    threshold=128,
)
