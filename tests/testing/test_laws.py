"""The laws that plug-ins are tested with hold for volseg's networks, and fail if a network breaks them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from volseg.models import read_card
from volseg.testing import assert_no_seams
from volseg.testing.factories import blobs, make_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_padded_network_leaves_no_seams_in_any_source_type(small_model: Path, dtype: str) -> None:
    assert_no_seams(small_model, blobs((2, 40, 67), dtype=dtype), blocks=[(1, 16, 32), (2, 40, 48)])


def test_default_blocks_leave_no_seams(small_model: Path) -> None:
    assert_no_seams(small_model, blobs((3, 50, 70)))


def test_unpadded_network_leaves_no_seams(tmp_path: Path) -> None:
    model = make_model(tmp_path / "unet.safetensors", "unet", {"width": 3, "depth": 2, "batch_norm": True})
    assert_no_seams(model, blobs((2, 40, 67)), blocks=[(1, 16, 32)])


def test_halo_below_the_reach_is_reported_with_block_difference_and_voxel(small_model: Path, monkeypatch) -> None:
    footprint = type(read_card(small_model).card.footprint)
    monkeypatch.setattr(footprint, "exact_halo", lambda self: self.margin)
    with pytest.raises(AssertionError, match=r"blocks of \(1, 32, 32\) differ .* at voxel \(\d+, \d+, \d+\)"):
        assert_no_seams(small_model, blobs((1, 64, 64)), blocks=[(1, 32, 32)])


def test_output_that_hardly_varies_is_refused(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("volseg.testing.factories.whole_pass", lambda _model, raw, *_: np.full(raw.shape, 0.5))
    with pytest.raises(AssertionError, match="seams would not show"):
        assert_no_seams(small_model, blobs((1, 20, 20)))


def test_constant_blocks_are_refused(small_model: Path) -> None:
    raw = np.full((1, 512, 128), 7, np.uint8)
    raw[:, :64] = blobs((1, 64, 128))
    with pytest.raises(AssertionError, match="skipped"):
        assert_no_seams(small_model, raw, blocks=[(1, 64, 128)])
