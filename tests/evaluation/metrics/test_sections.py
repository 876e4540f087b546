"""V_rand and V_info are perfect for the truth itself, and means over sections."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from scipy import ndimage
from skimage.segmentation import watershed

from volseg.errors import ConfigError
from volseg.evaluation.metrics import SegmentationCounts, section_scores
from volseg.evaluation.metrics.sections import THRESHOLDS, proposed_cells, true_cells

SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9))
FEW = settings(max_examples=25)

TWO = np.array([[[1, 1, 0, 2, 2]]])
GAP = np.float32([[[0, 0, 0.35, 0, 0]]])


def noisy(seed: int, shape: tuple[int, int, int] = (2, 24, 24)) -> tuple[np.ndarray, np.ndarray]:
    """Ids that membrane separates, and a map of the membrane with distinct values."""
    rng = np.random.default_rng(seed)
    ids: np.ndarray = np.kron(rng.integers(0, 30, (shape[0], shape[1] // 6, shape[2] // 6)), np.ones((1, 6, 6), int))
    ids[:, ::6] = 0
    ids[:, :, ::6] = 0
    blurred = ndimage.gaussian_filter((ids == 0).astype(float), (0, 1, 1)) + rng.random(ids.shape) * 0.3
    return (blurred / blurred.max()).astype(np.float32), ids


def test_a_case_computed_by_hand() -> None:
    scores = section_scores(GAP, TWO)
    # Up to 0.3 cells are separate. From 0.4 on they are one segment of 4 true pixels: (4 + 4) / (1/2 * 8 + 1/2 * 16).
    assert scores.v_rand == pytest.approx((1, 1, 1, *[2 / 3] * 6))
    assert list(scores.v_info) == [1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert (scores.best_v_rand, scores.v_rand_threshold, scores.rand_split, scores.rand_merge) == (1, 0.1, 1, 1)
    assert (scores.best_v_info, scores.v_info_threshold, scores.info_split, scores.info_merge) == (1, 0.1, 1, 1)
    assert (scores.thresholds, scores.sections) == ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), 1)


def test_a_section_without_a_pixel_below_the_threshold_is_one_segment() -> None:
    scores = section_scores(np.ones_like(GAP), TWO)
    assert scores.v_rand == pytest.approx([2 / 3] * 9)
    assert (scores.rand_split, scores.rand_merge) == (1, 0.5)
    assert (scores.info_split, scores.info_merge, scores.best_v_info) == (1, 0, 0)


@FEW
@given(st_numpy.arrays(bool, SHAPES))
def test_truth_against_itself_is_perfect(cells: np.ndarray) -> None:
    assume(cells.any())
    scores = section_scores((~cells).astype(np.float32), cells.astype(np.int32))
    assert set(scores.v_rand) | set(scores.v_info) == {1}
    assert (scores.rand_split, scores.rand_merge, scores.info_split, scores.info_merge) == (1, 1, 1, 1)
    assert scores.sections == cells.any(axis=(1, 2)).sum()


@FEW
@given(st_numpy.arrays(np.uint8, (2, 6, 7)), st_numpy.arrays(np.int32, (2, 6, 7), elements=st.integers(-1, 4)))
def test_scores_lie_between_0_and_1_and_are_equal_for_uint8_and_float32(
    probability: np.ndarray, ids: np.ndarray
) -> None:
    assume((ids > 0).any())
    scores = section_scores(probability, ids)
    values = (
        *scores.v_rand,
        *scores.v_info,
        scores.rand_split,
        scores.rand_merge,
        scores.info_split,
        scores.info_merge,
    )
    assert all(0 <= value <= 1 for value in values)
    assert scores == section_scores(probability / np.float32(255), ids)


@FEW
@given(st.integers(0, 99), st_numpy.arrays(bool, (2, 12, 12)))
def test_ignored_pixels_change_nothing(seed: int, ignored: np.ndarray) -> None:
    probability, ids = noisy(seed, (2, 12, 12))
    assume(((ids > 0) & ~ignored).any())
    expected = section_scores(probability, np.where(ignored, -1, ids))
    other = np.where(ignored, np.random.default_rng(seed).random(ids.shape, np.float32), probability)
    counts = SegmentationCounts()
    counts.add(other, ids, ignored)
    assert counts.scores() == expected


def test_truth_against_itself_is_perfect_if_a_part_is_ignored() -> None:
    _, ids = noisy(0)
    ids = (ids > 0).astype(int)
    probability = (ids == 0).astype(np.float32)
    ids[:, 7:13, 3:20] = -1
    probability[:, 7:13, 3:20] = 0
    assert set(section_scores(probability, ids).v_info) == {1}


@pytest.mark.parametrize("seed", range(3))
def test_renumbering_changes_nothing_and_scores_are_means_of_sections(seed: int) -> None:
    probability, ids = noisy(seed)
    counts = SegmentationCounts()
    for section, section_ids in zip(probability, ids, strict=True):
        counts.add(section[None], np.where(section_ids > 0, 2**40 - section_ids, 0)[None].astype(np.uint64))
    assert counts.scores() == section_scores(probability, ids)
    single = [section_scores(probability[z : z + 1], ids[z : z + 1]).v_rand for z in range(2)]
    np.testing.assert_allclose(np.mean(single, axis=0), counts.scores().v_rand)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("threshold", [0.2, 0.5, 0.8])
def test_cells_equal_a_watershed_of_the_whole_section(seed: int, threshold: float) -> None:
    probability = noisy(seed)[0][0]
    seeds, _ = ndimage.label(probability < threshold)
    expected = watershed(probability, seeds)
    np.testing.assert_array_equal(proposed_cells(probability, threshold), expected)


def test_touching_ids_and_separate_components_are_different_cells() -> None:
    assert len(np.unique(true_cells(np.array([[1, 1, 2], [0, 3, 3], [1, 0, 3]])))) == 1 + 4
    assert true_cells(np.array([[-1, 5, -1, 5]])).tolist() == [[0, 1, 0, 2]]


def test_splits_lower_split_scores_and_mergers_lower_merge_scores() -> None:
    one = np.ones((1, 1, 5), int)
    split, merger = section_scores(GAP, one), section_scores(np.zeros_like(GAP), TWO)
    assert split.v_rand[0] < 1
    # One true cell has no information, so the mutual information is 0.
    assert split.v_info[0] == 0
    assert (merger.rand_split, merger.info_split) == (1, 1)
    assert (merger.rand_merge, merger.info_merge) == (0.5, 0)


def test_sections_without_cells_do_not_count() -> None:
    probability, ids = np.concatenate([GAP, GAP]), np.concatenate([TWO, np.zeros_like(TWO)])
    assert section_scores(probability, ids) == section_scores(GAP, TWO)
    with pytest.raises(ConfigError, match="no section of the truth holds a cell"):
        section_scores(GAP, np.zeros_like(TWO))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ in shape"):
        section_scores(GAP, TWO[:, :, :3])


def test_thresholds_are_tenths() -> None:
    assert tuple(round(0.1 * step, 1) for step in range(1, 10)) == THRESHOLDS
