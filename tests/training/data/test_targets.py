"""Targets are what the labels say, wherever they lie, and count where that is known."""

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
from volseg.training.data.targets import classes_of, targets_of

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
    same, known = targets_of(labels_of(labels), target, classes_of(target), "sigmoid")
    return same[:, 0].numpy(), known[:, 0].numpy()


@settings(max_examples=20)
@given(ids(1))
def test_membrane_alone_or_beside_what_it_is_not(labels: np.ndarray) -> None:
    alone, known = targets_of(labels_of(labels), MEMBRANE, ("membrane",), "sigmoid")
    pair, _ = targets_of(labels_of(labels), MEMBRANE, ("membrane", "cell"), "softmax")
    other_way, _ = targets_of(labels_of(labels), MEMBRANE, ("background", "membrane"), "softmax")
    np.testing.assert_array_equal(alone[:, 0], labels == 1)
    np.testing.assert_array_equal(known[:, 0], labels != IGNORED)
    np.testing.assert_array_equal(pair[:, :1], alone)
    np.testing.assert_array_equal(pair.sum(dim=1, keepdim=True), known)
    np.testing.assert_array_equal(pair.flip(1), other_way)


@settings(max_examples=20)
@given(ids(1), st.integers(0, 3))
def test_membrane_turns_with_the_labels(labels: np.ndarray, turns: int) -> None:
    for straight, turned in zip(
        targets_of(labels_of(labels), MEMBRANE, ("membrane",), "sigmoid"),
        targets_of(labels_of(np.rot90(labels, turns, (2, 3)).copy()), MEMBRANE, ("membrane",), "sigmoid"),
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
def test_an_offset_and_its_opposite_tell_the_same_of_each_pair(
    labels: np.ndarray, offset: tuple[int, int, int]
) -> None:
    back: tuple[int, int, int] = (-offset[0], -offset[1], -offset[2])
    for forward, backward in zip(affinity(labels, offset), affinity(labels, back), strict=True):
        rolled = np.roll(forward, offset, axis=(1, 2, 3))
        valid = np.roll(affinity(np.ones_like(labels), offset)[1], offset, axis=(1, 2, 3)) > 0
        np.testing.assert_array_equal(rolled[valid], backward[valid])
        assert not backward[~valid].any()


@settings(max_examples=20)
@given(ids(2))
def test_an_affinity_turns_with_labels_and_offset(labels: np.ndarray) -> None:
    turned = np.rot90(labels, 1, (2, 3)).copy()  # what lay along +x then lies along -y
    for straight, after in zip(affinity(labels, (0, 0, 1)), affinity(turned, (0, -1, 0)), strict=True):
        np.testing.assert_array_equal(np.rot90(straight, 1, (2, 3)), after)


def test_channels_are_named_and_ordered_after_their_offsets() -> None:
    target = TargetSettings(kind="affinities", offsets=((-1, 0, 0), (0, -9, 4), (0, 0, -1)))
    assert classes_of(target) == ("affinity_z-1", "affinity_y-9_x4", "affinity_x-1")
    assert classes_of(MEMBRANE) == ("membrane",)
    same, known = targets_of(labels_of([[[[1, 1, 2]]]]), target, classes_of(target), "sigmoid")
    assert same.dtype == known.dtype == torch.float32
    assert same[0, :, 0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 0]]
    assert known[0, :, 0, 0].tolist() == [[0, 0, 0], [0, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("offsets", [((0, 0, 0),), ((0, 0, 1), (0, 0, 1)), ()])
def test_offsets_that_are_no_neighbours_are_refused(offsets: Any) -> None:
    with pytest.raises(ConfigError, match="different neighbours"):
        classes_of(TargetSettings(kind="affinities", offsets=offsets))


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
def test_classes_that_the_labels_do_not_tell_apart_are_refused(
    target: TargetSettings, classes: tuple[str, ...], activation: Any
) -> None:
    with pytest.raises(ConfigError, match=activation):
        targets_of(labels_of(np.ones((1, 1, 2, 2))), target, classes, activation)
