"""The evidence on the way to the input and back, and that it would say so were a fault made here or repaired there."""

import numpy as np
import pytest
import torch

from featherseg.papers.etris import audit_resizing as audit


def test_the_released_pair_fits_at_the_top_left_and_is_three_pixels_apart_at_the_bottom_right():
    frame = audit.grid_pairs().set_index("pair")
    ends = ["first column", "middle", "last column"]
    # cell i holds column 4 i, and comes back at 415/103 i
    assert list(frame.loc["released", ends]) == pytest.approx([0, 1.5, 415 - 4 * 103], abs=0.01)
    # cell i holds column 4 i + 2, whose middle is half a pixel right of the cell's
    assert list(frame.loc["here", ends]) == pytest.approx([-0.5] * 3, abs=0.01)
    assert list(frame.loc["half of it: the released way back only", ends]) == pytest.approx([-2, -0.5, 1], abs=0.01)
    said = audit.pairs_verdict(frame.reset_index())
    assert "The released two fit each other at the top left and are 3.0 pixels apart at the bottom right" in said


def test_targets_of_the_cells_centre_would_be_told(monkeypatch):
    monkeypatch.setitem(audit.PAIRS, "released", ("nearest_exact", "bicubic"))
    assert "do NOT fit each other at the top left" in audit.pairs_verdict(audit.grid_pairs())


def test_a_warp_aliases_and_moves_and_a_letterbox_does_not():
    frame = audit.warps().set_index("resize")
    assert frame.loc["letterbox", "contrast left"] < 20 and frame.loc["warp", "contrast left"] > 90
    assert abs(frame.loc["letterbox", ["moved right", "moved down"]]).max() < 0.05
    # places instead of edges: (1 - 416/640) / 2 of a pixel
    assert list(frame.loc["warp", ["moved right", "moved down"]]) == pytest.approx([0.175] * 2, abs=0.05)
    assert frame.loc["letterbox", "grey"] == 0 < frame.loc["warp", "grey"]
    assert "`warp` leaves 98 %" in audit.warps_verdict(frame.reset_index())


def test_every_way_back_decides_some_pixels_otherwise():
    frame = audit.ways_back()
    by_way = frame.groupby("way back")["decided otherwise"]
    assert by_way.max()["bilinear"] == 0 < by_way.min()["published_cubic"] < by_way.min()["published_nearest"] < 10
    assert "`published_nearest` decides up to" in audit.ways_verdict(frame)


def test_a_way_back_that_is_the_default_would_be_found_out(monkeypatch):
    from featherseg.models.base import SegmentationModel

    def default(self, logits, sizes):
        for plane, size in zip(self.to_input(logits), sizes, strict=True):
            yield self.resize.inverse(plane[None], *size)[0, 0].sigmoid().numpy()

    monkeypatch.setattr(SegmentationModel, "original_resolution", torch.no_grad()(default))
    assert "`published_nearest` decides up to 0.0 %" in audit.ways_verdict(audit.ways_back())


def test_grey_above_zero_makes_masks_larger():
    frame = audit.mask_levels()
    assert (frame["area, above 0"] > 103).all() and (frame["DSC, above 0"] < 99).all()
    np.testing.assert_allclose(frame["DSC, from 128 on"], 100)
    small, large = (frame[frame.radius == radius]["DSC, above 0"].min() for radius in (0.05, 0.25))
    assert small < large - 5
    assert f"as little as {small:.1f} % DSC" in audit.levels_verdict(frame)


def test_every_part_has_a_heading_a_table_and_a_verdict():
    heads = [part.data for part in audit.there_and_back() if str(getattr(part, "data", "")).startswith("###")]
    assert len(heads) == 4 and len(audit.there_and_back()) == 12
