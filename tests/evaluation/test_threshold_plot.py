"""The plot shows pixel scores, and cell scores if there are any."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from volseg.errors import TargetError
from volseg.evaluation.metrics import PixelCounts, pixel_curves, section_scores
from volseg.evaluation.threshold_plot import save_thresholds

if TYPE_CHECKING:
    from pathlib import Path

IDS = np.array([[[1, 1, 0, 2, 2]]])


@pytest.fixture
def counts() -> PixelCounts:
    """Counts of five pixels."""
    counts = PixelCounts()
    counts.add(np.array([10, 100, 200, 20, 10], np.uint8), IDS[0, 0] == 0)
    return counts


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_scores_of_cells_are_drawn_if_given(tmp_path: Path, counts: PixelCounts) -> None:
    save_thresholds(tmp_path / "pixels.png", pixel_curves(counts))
    save_thresholds(tmp_path / "both.png", pixel_curves(counts), section_scores(np.float32([[[0, 0, 1, 0, 0]]]), IDS))
    blue = [((pixels(tmp_path / name) == (31, 119, 180)).all(axis=2)).any() for name in ("pixels.png", "both.png")]
    assert blue == [False, True]


def test_a_path_that_cannot_be_written_is_refused(tmp_path: Path, counts: PixelCounts) -> None:
    with pytest.raises(TargetError, match="choose a writable folder"):
        save_thresholds(tmp_path / "none" / "a.png", pixel_curves(counts))
