"""The evidence on SAN as released, and that it would say so were it built as in the paper."""

import pytest

from featherseg.papers.vlsm_adapter import audit_san as audit

BLOCKS = "CLIP blocks behind the proposals"


@pytest.fixture(autouse=True)
def at_the_root(request, monkeypatch):
    monkeypatch.chdir(request.config.rootpath)  # where the recipes are


def test_as_released_less_of_clip_is_heard_and_less_trains():
    frame = audit.side_networks()
    paper, released = (frame.set_index("recipe").loc[recipe] for recipe in (audit.OURS, audit.RELEASED))
    assert (paper[BLOCKS], released[BLOCKS]) == (9, 2)
    assert paper["with gradient"] == paper["tensors to train"] == released["tensors to train"]
    unreached = 4 + 6 + 2 + 1  # a fusion, the attention biases and their scale, CLIP's positions
    assert released["with gradient"] == released["tensors to train"] - unreached
    assert (paper["parameters trained"], released["parameters trained"]) == (8_370_354, 7_115_968)
    said = audit.side_verdict(frame)
    assert said.startswith("As released 2 of CLIP's blocks stand behind the proposals (in the paper 9)")
    assert "7,115,968 of 8,370,354 parameters train; published are 8.4 M" in said


def test_a_side_network_as_in_the_paper_would_be_found_out(monkeypatch):
    monkeypatch.setattr(audit, "BUILT_AS", dict.fromkeys(audit.BUILT_AS, (False, True)))
    assert audit.side_verdict(audit.side_networks()).startswith("NOT SHOWN: as released 9 of CLIP's blocks")
