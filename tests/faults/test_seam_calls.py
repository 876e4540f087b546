"""Seamed maps are called seamed and good ones are not, by the map alone; `make test-faults` prints the counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.seam_calls import calls_of, judged
from tests.faults.seam_maps import train_small

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_map_with_a_small_halo_is_called_and_those_with_a_full_one_are_not(tmp_path: Path) -> None:
    train_small(tmp_path / "unet.safetensors", "unet")
    counts = judged(calls_of(2, tmp_path))
    assert counts["good"] == 2
    assert counts["normalised"] == 1
