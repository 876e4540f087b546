"""Pixel scores agree with a count by hand and with the definitions of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.errors import ConfigError
from volseg.evaluation.metrics import PixelCounts, pixel_curves, pixel_scores


def count_pixels(probability: list[int], membrane: list[bool]) -> PixelCounts:
    counts = PixelCounts()
    counts.add(np.array(probability, np.uint8), np.array(membrane))
    return counts


def test_a_case_counted_by_hand() -> None:
    scores = pixel_scores(count_pixels([255, 200, 100, 128, 30, 0], [True, True, True, False, False, False]))
    assert scores.precision == pytest.approx(2 / 3)
    assert scores.recall == pytest.approx(2 / 3)
    assert scores.f1 == pytest.approx(2 / 3)
    assert scores.pixel_error == pytest.approx(2 / 6)
    assert scores.best_f1 == pytest.approx(6 / 7)
    assert 30 / 255 < scores.best_threshold <= 100 / 255
    assert scores.membrane_share == 0.5
    # Membrane is at ranks 1, 2 and 4: precisions 1, 1 and 3/4.
    assert scores.average_precision == pytest.approx((1 + 1 + 3 / 4) / 3)


@given(st.lists(st.tuples(st.integers(0, 255), st.booleans()), min_size=2, max_size=60), st.floats(0, 1))
def test_any_threshold_equals_thresholding(pairs: list[tuple[int, bool]], threshold: float) -> None:
    probability, membrane = (np.array(column) for column in zip(*pairs, strict=True))
    if membrane.all() or not membrane.any():
        return
    scores = pixel_scores(count_pixels(probability.tolist(), membrane.tolist()), threshold)
    predicted = probability >= np.ceil(threshold * 255 - 1e-9)
    hits = (predicted & membrane).sum()
    assert scores.recall == pytest.approx(hits / membrane.sum())
    assert scores.pixel_error == pytest.approx((predicted != membrane).mean())
    assert scores.best_f1 >= scores.f1 - 1e-12


def test_truth_against_itself_is_perfect() -> None:
    truth = np.random.default_rng(0).random((4, 16, 16)) < 0.2
    counts = PixelCounts()
    counts.add(truth.astype(np.uint8) * 255, truth)
    scores = pixel_scores(counts)
    assert (scores.f1, scores.best_f1, scores.average_precision, scores.pixel_error) == (1.0, 1.0, 1.0, 0.0)


def test_blocks_sum_to_the_volume() -> None:
    rng = np.random.default_rng(1)
    probability, truth = rng.integers(0, 256, (6, 20, 20)).astype(np.uint8), rng.random((6, 20, 20)) < 0.3
    whole, parts = PixelCounts(), PixelCounts()
    whole.add(probability, truth)
    for z in range(6):
        parts.add(probability[z], truth[z])
    assert pixel_scores(whole) == pixel_scores(parts)


@given(st.lists(st.tuples(st.integers(0, 255), st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_ignored_pixels_change_nothing(triples: list[tuple[int, bool, bool]]) -> None:
    counts = PixelCounts()
    probability, membrane, ignored = (np.array(column) for column in zip(*triples, strict=True))
    counts.add(probability, membrane, ignored)
    rest = [(value, truth) for value, truth, skip in triples if not skip]
    expected = count_pixels([value for value, _ in rest], np.array([truth for _, truth in rest], bool))
    np.testing.assert_array_equal(counts.membrane, expected.membrane)
    np.testing.assert_array_equal(counts.cell, expected.cell)


def test_curves_hold_the_scores_of_each_threshold() -> None:
    rng = np.random.default_rng(2)
    counts = count_pixels(rng.integers(0, 256, 500).tolist(), (rng.random(500) < 0.4).tolist())
    curves = pixel_curves(counts)
    for step in (0, 64, 200, 255):
        scores = pixel_scores(counts, step / 255)
        values = (curves.precision[step], curves.recall[step], curves.f1[step], curves.pixel_error[step])
        assert values == (scores.precision, scores.recall, scores.f1, scores.pixel_error)
        assert curves.threshold[step] == scores.threshold
    assert curves.f1.max() == pixel_scores(counts).best_f1


@pytest.mark.parametrize("membrane", [[True, True], [False, False]])
def test_a_truth_of_one_kind_is_refused(membrane: list[bool]) -> None:
    with pytest.raises(ConfigError, match="nothing to score; check which labels are membrane"):
        pixel_scores(count_pixels([1, 2], membrane))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ConfigError, match="differ in shape"):
        PixelCounts().add(np.zeros((2, 2), np.uint8), np.zeros((2, 3), bool))
