"""Scores of ids agree with a case computed by hand and with scikit-image, and are invariant under renumbering."""

from __future__ import annotations

from dataclasses import asdict
from math import log2, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skimage.metrics import adapted_rand_error, variation_of_information

from volseg.errors import ConfigError
from volseg.evaluation.metrics import InstanceCounts, instance_scores
from volseg.evaluation.metrics.contingency import contingency
from volseg.evaluation.metrics.partitions import information_agreement, pair_agreement, rand_agreement, rand_error

TRUTH, PROPOSAL = np.array([1, 1, 1, 1, 2, 2]), np.array([5, 5, 6, 6, 6, 6])
IDS = st.lists(st.tuples(st.integers(1, 4), st.integers(0, 4)), min_size=1, max_size=30)


def columns(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    truth, proposal = np.array(pairs).T
    return truth, proposal


def test_a_case_computed_by_hand() -> None:
    # Overlaps 2, 2, 2; true sizes 4, 2; proposed sizes 2, 4. Pairs of two voxels: 3 shared of 7 and 7, and 15 in all.
    table = contingency(TRUTH, PROPOSAL)
    rand, info = rand_agreement(table), information_agreement(table)
    assert (rand.split, rand.merge, rand.mean) == pytest.approx((12 / 20, 12 / 20, 12 / 20))
    # H of (1/3, 2/3) is log2(3) - 2/3 and that of three thirds log2(3).
    expected = (log2(3) - 4 / 3) / (log2(3) - 2 / 3)
    assert (info.split, info.merge, info.mean) == pytest.approx((expected,) * 3)
    scores = instance_scores(PROPOSAL, TRUTH)
    assert (scores.precision, scores.recall) == pytest.approx((3 / 7, 3 / 7))
    assert scores.adapted_rand_error == pytest.approx(4 / 7)
    assert (scores.voi_split, scores.voi_merge) == pytest.approx((2 / 3, 2 / 3))
    assert scores.cremi == pytest.approx(sqrt(4 / 7 * 4 / 3))
    assert scores.rand_error == pytest.approx(8 / 15)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shape", [(20, 30), (4, 12, 9)])
def test_scores_equal_those_of_scikit_image(seed: int, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(seed)
    truth, proposal = rng.integers(0, 6, shape), rng.integers(0, 9, shape)
    proposal = np.where(rng.random(shape) < 0.7, truth, proposal)
    scores = instance_scores(proposal, truth)
    # scikit-image swaps precision and recall, contrary to its documentation and the paper.
    error, recall, precision = adapted_rand_error(truth, proposal)
    assert (scores.adapted_rand_error, scores.precision, scores.recall) == pytest.approx((error, precision, recall))
    variation = variation_of_information(truth, proposal, ignore_labels=[0])
    assert (scores.voi_split, scores.voi_merge) == pytest.approx(tuple(variation))


@given(IDS)
def test_a_renumbered_truth_is_perfect(pairs: list[tuple[int, int]]) -> None:
    truth, _ = columns(pairs)
    scores = asdict(instance_scores(100 - 7 * truth, truth))
    assert (scores.pop("precision"), scores.pop("recall")) == (1, 1)
    assert set(scores.values()) == {0}


@given(IDS)
def test_renumbering_changes_nothing(pairs: list[tuple[int, int]]) -> None:
    truth, proposal = columns(pairs)
    assert instance_scores(2**40 - 3 * proposal, 5 * truth + 2) == instance_scores(proposal, truth)


@given(IDS)
def test_splits_lower_only_split_scores_and_mergers_only_merge_scores(pairs: list[tuple[int, int]]) -> None:
    coarse, other = columns(pairs)
    fine = 10 * coarse + other
    has_splits = len(np.unique(fine)) > len(np.unique(coarse))
    for agreement in (rand_agreement, information_agreement, pair_agreement):
        split, merger = agreement(contingency(coarse, fine)), agreement(contingency(fine, coarse))
        assert split.merge == merger.split == 1
        assert split.split == merger.merge
        assert (split.split < 1) == has_splits
        assert 0 <= split.mean <= 1
    scores = instance_scores(fine, coarse)
    assert (scores.voi_merge, scores.voi_split > 0) == (0, has_splits)


@given(IDS)
def test_scores_lie_between_0_and_1_and_swap_with_the_partitions(pairs: list[tuple[int, int]]) -> None:
    truth, proposal = columns(pairs)
    table, swapped_table = contingency(truth, proposal), contingency(proposal, truth)
    for agreement in (rand_agreement, information_agreement, pair_agreement):
        scores, swapped = agreement(table), agreement(swapped_table)
        assert 0 <= scores.split <= 1
        assert 0 <= scores.merge <= 1
        assert (scores.split, scores.merge) == (swapped.merge, swapped.split)
    assert 0 <= rand_error(table) == rand_error(swapped_table) <= 1


@given(IDS, IDS)
def test_ignored_voxels_and_slabs_change_nothing(pairs: list[tuple[int, int]], more: list[tuple[int, int]]) -> None:
    truth, proposal = columns(pairs)
    extra_truth, extra = columns(more)
    counts = InstanceCounts()
    counts.add(extra, -extra_truth)
    for z in range(len(truth)):
        counts.add(proposal[z : z + 1], truth[z : z + 1])
    counts.add(extra, extra_truth, np.ones(len(more), bool))
    assert counts.scores() == instance_scores(proposal, truth)


def test_voxels_outside_cells_count_only_for_the_plain_rand_error() -> None:
    without, within = instance_scores(PROPOSAL, TRUTH), instance_scores(np.append(PROPOSAL, 6), np.append(TRUTH, 0))
    assert within.adapted_rand_error == without.adapted_rand_error
    # The seventh voxel adds six pairs, of which four are wrongly in one segment.
    assert within.rand_error == pytest.approx((8 + 4) / 21)


def test_invalid_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="holds no cell"):
        instance_scores(np.ones(3, int), np.array([0, 0, -1]))
    with pytest.raises(ConfigError, match="nothing to score"):
        InstanceCounts().scores()
    with pytest.raises(ConfigError, match="differ in shape"):
        instance_scores(np.ones(3, int), np.ones(4, int))
    with pytest.raises(ConfigError, match="proposed ids are float32; give them as integers"):
        instance_scores(np.ones(3, np.float32), np.ones(3, int))
