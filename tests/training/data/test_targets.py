"""Targets: equal to the labels, with a mask of valid voxels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from volseg.config.train_tables import TargetSettings
from volseg.errors import ConfigError
from volseg.training.data.sample import IGNORED
from volseg.training.data.targets import make_targets, target_classes

MEMBRANE = TargetSettings()
SHAPES = st.tuples(st.just(2), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))
OFFSETS = st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.integers(-3, 3)).filter(any)


def labels_of(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values), dtype=torch.int32)


def ids(largest: int) -> st.SearchStrategy[np.ndarray]:
    return arrays(np.int32, SHAPES, elements=st.integers(IGNORED, largest))


def affinities(offset: tuple[int, int, int]) -> TargetSettings:
    return TargetSettings(kind="affinities", offsets=(offset,))


def affinity(labels: np.ndarray, offset: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    target = affinities(offset)
    same, known = make_targets(labels_of(labels), target, target_classes(target), "sigmoid")
    return same[:, 0].numpy(), known[:, 0].numpy()


@settings(max_examples=20)
@given(ids(1))
def test_membrane_with_a_sigmoid_or_with_a_softmax_over_two_classes(labels: np.ndarray) -> None:
    single, known = make_targets(labels_of(labels), MEMBRANE, ("membrane",), "sigmoid")
    pair, _ = make_targets(labels_of(labels), MEMBRANE, ("membrane", "cell"), "softmax")
    other_way, _ = make_targets(labels_of(labels), MEMBRANE, ("background", "membrane"), "softmax")
    np.testing.assert_array_equal(single[:, 0], labels == 1)
    np.testing.assert_array_equal(known[:, 0], labels != IGNORED)
    np.testing.assert_array_equal(pair[:, :1], single)
    np.testing.assert_array_equal(pair.sum(dim=1, keepdim=True), known)
    np.testing.assert_array_equal(pair.flip(1), other_way)


@settings(max_examples=20)
@given(ids(1), st.integers(0, 3))
def test_membrane_rotates_with_the_labels(labels: np.ndarray, turns: int) -> None:
    for straight, turned in zip(
        make_targets(labels_of(labels), MEMBRANE, ("membrane",), "sigmoid"),
        make_targets(labels_of(np.rot90(labels, turns, (2, 3)).copy()), MEMBRANE, ("membrane",), "sigmoid"),
        strict=True,
    ):
        assert torch.equal(straight.rot90(turns, (3, 4)), turned)


@settings(max_examples=40)
@given(ids(2), OFFSETS)
def test_an_affinity_compares_a_voxel_with_its_neighbour(labels: np.ndarray, offset: tuple[int, int, int]) -> None:
    same, known = affinity(labels, offset)
    for place in np.ndindex(labels.shape):
        n, *voxel = place
        there = tuple(a + b for a, b in zip(voxel, offset, strict=True))
        inside = all(0 <= a < side for a, side in zip(there, labels.shape[1:], strict=True))
        pair = {int(labels[place]), int(labels[(n, *there)])} if inside else {IGNORED}
        assert known[place] == (IGNORED not in pair)
        assert same[place] == (len(pair) == 1 and max(pair) > 0)


@settings(max_examples=20)
@given(ids(2), OFFSETS)
def test_opposite_offsets_agree_on_each_pair(labels: np.ndarray, offset: tuple[int, int, int]) -> None:
    opposite: tuple[int, int, int] = (-offset[0], -offset[1], -offset[2])
    for forward, backward in zip(affinity(labels, offset), affinity(labels, opposite), strict=True):
        rolled = np.roll(forward, offset, axis=(1, 2, 3))
        valid = np.roll(affinity(np.ones_like(labels), offset)[1], offset, axis=(1, 2, 3)) > 0
        np.testing.assert_array_equal(rolled[valid], backward[valid])
        assert not backward[~valid].any()


@settings(max_examples=20)
@given(ids(2))
def test_an_affinity_rotates_with_labels_and_offset(labels: np.ndarray) -> None:
    turned = np.rot90(labels, 1, (2, 3)).copy()  # the direction +x becomes -y
    for straight, after in zip(affinity(labels, (0, 0, 1)), affinity(turned, (0, -1, 0)), strict=True):
        np.testing.assert_array_equal(np.rot90(straight, 1, (2, 3)), after)


def test_channels_have_the_names_and_order_of_their_offsets() -> None:
    target = TargetSettings(kind="affinities", offsets=((-1, 0, 0), (0, -9, 4), (0, 0, -1)))
    assert target_classes(target) == ("affinity_z-1", "affinity_y-9_x4", "affinity_x-1")
    assert target_classes(MEMBRANE) == ("membrane",)
    same, known = make_targets(labels_of([[[[1, 1, 2]]]]), target, target_classes(target), "sigmoid")
    assert same.dtype == known.dtype == torch.float32
    assert same[0, :, 0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert known[0, :, 0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("offsets", [((0, 0, 0),), ((0, 0, 1), (0, 0, 1)), ()])
def test_zero_duplicate_and_missing_offsets_are_refused(offsets: Any) -> None:
    with pytest.raises(ConfigError, match="different neighbours"):
        target_classes(TargetSettings(kind="affinities", offsets=offsets))


@pytest.mark.parametrize(
    ("target", "classes", "activation"),
    [
        (MEMBRANE, ("cell", "membrane"), "sigmoid"),
        (MEMBRANE, ("membrane",), "softmax"),
        (MEMBRANE, ("cell", "mitochondrion"), "softmax"),
        (MEMBRANE, ("cell", "membrane", "mitochondrion"), "softmax"),
        (affinities((0, 0, 1)), ("membrane",), "sigmoid"),
        (affinities((0, 0, 1)), ("affinity_x1",), "softmax"),
    ],
)
def test_classes_that_do_not_fit_the_target_are_refused(
    target: TargetSettings, classes: tuple[str, ...], activation: Any
) -> None:
    with pytest.raises(ConfigError, match=activation):
        make_targets(labels_of(np.ones((1, 1, 2, 2))), target, classes, activation)
