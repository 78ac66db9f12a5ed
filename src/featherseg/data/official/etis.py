"""ETIS-Larib: 196 colonoscopy frames with polyp masks, for testing only."""

from featherseg.data.raw.layout import images_and_masks
from featherseg.data.raw.spec import DatasetSpec, medvlsm_lists

SPEC = DatasetSpec(
    name="etis",
    title="ETIS-Larib",
    source="https://github.com/DengPingFan/PraNet",
    licence="for research, as the authors' page says",
    citation="Silva et al., Toward embedded detection of polyps in WCE images for early diagnosis of colorectal "
             "cancer, IJCARS 2014",
    lists=medvlsm_lists(
        "etis", "etis_polyp",
        train="672128c7b0a88f5c323d57760032f851f44792a0b3b43eb5d6875f9db4c7c41b",
        val="4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945",
        test="f66e846899ad034e4123c8720d288f27d57158f5b9e902e7b278ffface26961f",
    ),
    target="polyp",
    field="endoscopy",
    layout=images_and_masks("TestDataset/ETIS-LaribPolypDB"),
    test_only=True,
    images="pranet_test",
    threshold=128,
)
