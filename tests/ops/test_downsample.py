"""Halving by mean and by mode."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.ops import downsample_mean, downsample_mode

shapes = st.tuples(*[st.integers(1, 7)] * 3)
factors = st.tuples(*[st.integers(1, 2)] * 3)


def cells(voxels, factors):
    """The voxels of each cell of the result, in C order."""
    shape = [-(-n // f) for n, f in zip(voxels.shape, factors, strict=True)]
    for at in product(*map(range, shape)):
        yield at, voxels[tuple(slice(a * f, (a + 1) * f) for a, f in zip(at, factors, strict=True))]


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "int8"])
@given(shape=shapes, factors=factors, seed=st.integers(0, 99))
def test_the_mean_is_that_of_the_voxels_there_rounded_to_even(dtype, shape, factors, seed):
    info = np.iinfo(dtype)
    voxels = np.random.default_rng(seed).integers(info.min, info.max, shape, dtype, endpoint=True)
    half = downsample_mean(voxels, factors)
    assert half.dtype == voxels.dtype
    for at, cell in cells(voxels, factors):
        assert half[at] == np.rint(cell.astype(np.float64).mean())


@given(shape=shapes, factors=factors, seed=st.integers(0, 99))
def test_the_mean_of_floats(shape, factors, seed):
    voxels = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    half = downsample_mean(voxels, factors)
    assert half.dtype == np.float32
    for at, cell in cells(voxels, factors):
        assert half[at] == pytest.approx(cell.astype(np.float64).mean(), rel=1e-6, abs=1e-7)


@given(shape=shapes, factors=factors, seed=st.integers(0, 99))
def test_the_mode_is_the_first_of_the_most_frequent(shape, factors, seed):
    labels = np.random.default_rng(seed).integers(0, 4, shape).astype(np.uint64) + 2**60
    half = downsample_mode(labels, factors)
    assert half.dtype == labels.dtype
    for at, cell in cells(labels, factors):
        values = cell.ravel().tolist()
        assert half[at] == max(values, key=values.count)


def test_no_level_is_brighter_than_the_finer_one():
    voxels = np.random.default_rng(0).integers(0, 256, (64, 256, 256), np.uint8)
    coarse = downsample_mean(downsample_mean(voxels, (2, 2, 2)), (2, 2, 2))
    assert abs(coarse.mean() - voxels.mean()) < 0.02


@pytest.mark.parametrize("dtype", ["uint64", "int64", "bool"])
def test_labels_have_no_mean(dtype):
    with pytest.raises(TypeError, match="downsample_mode"):
        downsample_mean(np.zeros((2, 2), dtype), (2, 2))


@pytest.mark.parametrize("factors", [(2, 2), (3, 1, 1)])
def test_other_factors_are_refused(factors):
    with pytest.raises(ValueError, match="1 or 2"):
        downsample_mean(np.zeros((2, 2, 2), np.uint8), factors)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2), (2, 1, 1)])
def test_the_mean_is_that_of_tensorstore(dtype, factors):
    tensorstore = pytest.importorskip("tensorstore", reason='needs tensorstore: pip install "volseg[formats]"')
    voxels = np.random.default_rng(1).integers(0, 30_000, (7, 33, 50)).astype(dtype)
    theirs = tensorstore.downsample(tensorstore.array(voxels), factors, "mean").read().result()
    ours = downsample_mean(voxels, factors)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(np.float64) - theirs).max() <= (0 if dtype != "float32" else 1e-2)


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2)])
def test_the_mode_is_that_of_tensorstore_where_one_label_has_the_majority(factors):
    tensorstore = pytest.importorskip("tensorstore", reason='needs tensorstore: pip install "volseg[formats]"')
    labels = np.random.default_rng(2).integers(0, 3, (6, 32, 48)).astype(np.uint32)
    theirs = tensorstore.downsample(tensorstore.array(labels), factors, "mode").read().result()
    ours = downsample_mode(labels, factors)
    for at, cell in cells(labels, factors):
        counts = np.bincount(cell.ravel())
        if (counts == counts.max()).sum() == 1:
            assert ours[at] == theirs[at]
