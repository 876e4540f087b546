"""Steps at the faces of blocks are found where they are, and nowhere else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from volseg.ops.seam_scores import THRESHOLD, score_faces, search_faces
from volseg.ops.seams import PlaneSteps, grey_level, plane_steps

SHAPE = (2, 240, 240)
BLOCK = (2, 48, 48)


def smooth(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Ridges as of membranes: saturated within cells, smooth between."""
    field = gaussian_filter(np.random.default_rng(seed).normal(size=shape), (0, 5, 5))
    return 255 * np.exp(-((field / field.std()) ** 2) * 3)


def offset_in_blocks(values: np.ndarray, block: tuple[int, int, int], levels: float, seed: int = 1) -> np.ndarray:
    """Add another offset to each block, where the map is not sure."""
    index = np.indices(values.shape)
    number: Any = sum((i // b) * k for i, b, k in zip(index, block, (1, 100, 10_000), strict=True))
    offsets = np.random.default_rng(seed).normal(size=int(number.max()) + 1) * levels
    return np.clip(values + offsets[number] * (values > 20) * (values < 235), 0, 255)


def windows(volume: np.ndarray) -> list[PlaneSteps]:
    return [plane_steps(volume, axis, level=grey_level(volume)) for axis in (0, 1, 2)]


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1, "uint8"), (257, "uint16"), (1 / 255, "float32"), (1 / 255, "float64")]
)
def test_small_offsets_of_blocks_are_seams_and_none_are_not(scale: float, dtype: str) -> None:
    good = (smooth() * scale).astype(dtype)
    seamed = (offset_in_blocks(smooth(), BLOCK, 4) * scale).astype(dtype)
    assert not any(face.is_seam for face in score_faces(windows(good), BLOCK))
    face = score_faces(windows(seamed), BLOCK)[0]
    assert face.is_seam
    assert face.faces == 8
    found = search_faces(windows(seamed), SHAPE)[0]
    assert found.is_seam
    assert found.period == (48, 48)
    assert not any(face.is_seam for face in search_faces(windows(good), SHAPE))


def test_chance_alone_gives_scores_of_one_deviation() -> None:
    """What the threshold rests on: over volumes and block shapes the scores are normal."""
    scores = [
        score_faces(found, (2, period, period))[0].score
        for found in (windows(smooth(seed).astype(np.uint8)) for seed in range(6))
        for period in (36, 40, 44, 48, 52, 56, 60, 64, 72)
    ]
    assert np.std(scores) < 1.5
    assert abs(np.mean(scores)) < 0.5
    assert max(scores) < THRESHOLD


def test_a_single_plane_is_no_seam_however_strong() -> None:
    """As a stitch of the source is."""
    volume = smooth()
    volume[:, 96:] = np.clip(volume[:, 96:] * 0.5 + 60, 0, 255)
    steps = [plane_steps(volume.astype(np.uint8), axis) for axis in (1, 2)]
    alone = score_faces([steps[0]], (2, 96, 240))[0]
    assert alone.score == pytest.approx(THRESHOLD / np.sqrt(2), abs=1.5)
    assert not alone.is_seam
    assert not score_faces(steps, BLOCK)[0].is_seam


def test_many_windows_of_one_plane_count_as_one() -> None:
    volume = smooth()
    volume[:, 96:] = np.clip(volume[:, 96:] * 0.5 + 60, 0, 255)
    narrow = [
        plane_steps(volume[:, a:, x : x + 48].astype(np.uint8), 1, a)
        for a in range(0, 40, 8)
        for x in range(0, 240, 48)
    ]
    assert not score_faces(narrow, (2, 96, 240))[0].is_seam


def test_a_grid_of_the_network_is_no_seam() -> None:
    """Upsampling leaves a pattern that repeats within the stride, on which blocks lie too."""
    volume = smooth()
    volume[:, ::16] = np.clip(volume[:, ::16] + 6, 0, 255)
    volume[:, :, ::16] = np.clip(volume[:, :, ::16] + 6, 0, 255)
    stepped = windows(volume.astype(np.uint8))
    assert not score_faces(stepped, BLOCK)[0].is_seam
    assert not score_faces(stepped, (2, 96, 96))[0].is_seam


def test_blocks_that_were_not_computed_are_no_seams() -> None:
    """Outside a mask a map is 0."""
    volume = smooth() + 20
    volume[:, 48:96, 96:192] = volume[:, 144:192, :96] = 0
    assert not score_faces(windows(np.clip(volume, 0, 255).astype(np.uint8)), BLOCK)[0].is_seam


def test_sections_that_differ_are_no_seams_but_blocks_of_them_are() -> None:
    rng, shape = np.random.default_rng(3), (48, 64, 64)
    sections = np.stack([smooth(seed, (1, 64, 64))[0] for seed in range(48)]) * 0.1
    base = 90 + sections + rng.normal(size=(48, 1, 1)) * 6
    block = (6, 64, 64)
    assert not any(face.is_seam for face in score_faces([plane_steps(base.astype(np.uint8), 0)], block))
    offsets = np.repeat(rng.normal(size=8) * 60, 6)[:, None, None]
    stepped = np.clip(base + offsets, 0, 255).astype(np.uint8)
    (face,) = (one for one in score_faces([plane_steps(stepped, 0)], (6, None, None)))
    assert face.score > THRESHOLD
    assert shape == stepped.shape


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 20, 200), (2, 200, 10), (0, 30, 30)])
def test_what_is_too_small_has_no_score(shape: tuple[int, int, int]) -> None:
    volume = np.zeros(shape, np.uint8)
    found = [plane_steps(volume, axis) for axis in (0, 1, 2)]
    assert [face.faces for face in score_faces(found, (1, 4, 4))] == [0, 0]
    assert not any(face.is_seam for face in search_faces(found, shape))


def test_a_tiny_excess_is_no_seam_however_certain() -> None:
    face = score_faces(windows(offset_in_blocks(smooth(), BLOCK, 4).astype(np.uint8)), BLOCK)[0]
    assert face.is_seam
    assert not replace(face, excess=0.014).is_seam
    assert not replace(face, score=face.threshold).is_seam


def test_a_face_beside_dark_cells_counts() -> None:
    """Cells are exactly 0 within, and a block may say so where the next one does not."""
    volume = np.zeros(SHAPE)
    for start in range(0, 240, 32):
        volume[:, start : start + 16, 48:96] = volume[:, start : start + 16, 144:192] = 60
    noise = np.random.default_rng(5).normal(size=SHAPE) * 3 * (volume > 0)
    faces = score_faces(windows((volume + noise).astype(np.uint8)), (2, 240, 48))
    assert faces[0].score > THRESHOLD
    assert faces[0].excess > 0.2
