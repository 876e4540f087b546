"""Another voxel size: areas, lines and votes with the right values, and refusals of sizes that make no sense."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from volseg.errors import ConfigError
from volseg.ops import Resampling, downsample_mean
from volseg.ops.resample import mean_taps, mode_taps, resample_axis, resample_mode, rounded

if TYPE_CHECKING:
    from collections.abc import Callable

RATIOS = [Fraction(*pair) for pair in ((1, 1), (2, 1), (3, 1), (5, 2), (11, 10), (7, 3), (1, 2), (2, 3), (9, 10))]


def whole_axis(values: Any, ratio: Fraction) -> Any:
    stop = -(-len(values) * ratio.denominator // ratio.numerator)
    taps = mean_taps(ratio, len(values), 0, stop)
    return resample_axis(values, taps, 0) / taps.total


@pytest.mark.parametrize("ratio", [r for r in RATIOS if r > 1])
def test_larger_voxels_hold_the_mean_of_what_they_cover(ratio: Fraction) -> None:
    values = np.random.default_rng(0).integers(0, 255, 23)
    fine = np.repeat(values, ratio.denominator)  # voxels of which both sizes are multiples
    covered = [fine[at : at + ratio.numerator] for at in range(0, len(fine), ratio.numerator)]
    np.testing.assert_allclose(whole_axis(values, ratio), [part.mean() for part in covered], rtol=1e-14)


@pytest.mark.parametrize("ratio", [r for r in RATIOS if r < 1])
def test_smaller_voxels_lie_on_lines_between_centres(ratio: Fraction) -> None:
    values = np.random.default_rng(0).integers(0, 255, 23)
    found = whole_axis(values, ratio)
    centres = (np.arange(len(found)) + 0.5) * float(ratio) - 0.5
    np.testing.assert_allclose(found, np.interp(centres, np.arange(23), values), rtol=1e-12)


@pytest.mark.parametrize("make", [mean_taps, mode_taps])
@pytest.mark.parametrize("ratio", [*RATIOS, Fraction(64), Fraction(1, 64), Fraction(999_983, 500_000)])
def test_taps_of_parts_are_those_of_the_whole(make: Callable[..., Any], ratio: Fraction) -> None:
    length = 66
    stop = -(-length * ratio.denominator // ratio.numerator)
    whole = make(ratio, length, 0, stop)
    assert whole.first.min() == 0
    assert whole.span[1] == length
    assert (whole.total > 0).all()
    step = max(2, stop // 20)
    for start in range(0, stop, step):
        part = make(ratio, length, start, min(start + step, stop))
        np.testing.assert_array_equal(part.first, whole.first[start : start + step])
        np.testing.assert_array_equal(part.weights, whole.weights[start : start + step])


def test_a_flat_volume_stays_flat_and_far_voxels_keep_their_place() -> None:
    for ratio in RATIOS:
        assert (rounded(whole_axis(np.full(50, 201, np.uint8), ratio), "uint8") == 201).all()
    far = mean_taps(Fraction(11, 10), 1 << 58, 10**17, 10**17 + 1)
    assert (far.first.tolist(), far.weights.tolist()) == ([11 * 10**16], [[10, 1]])


def test_halves_are_rounded_as_in_coarser_levels() -> None:
    voxels = np.random.default_rng(1).integers(0, 255, (9, 11), np.uint8)
    taps = [mean_taps(Fraction(2), n, 0, -(-n // 2)) for n in voxels.shape]
    sums = resample_axis(resample_axis(voxels, taps[0], 0), taps[1], 1)
    means = rounded(sums / (taps[0].total[:, None] * taps[1].total), "uint8")
    np.testing.assert_array_equal(means[:4, :5], downsample_mean(voxels, (2, 2))[:4, :5])


def mode(labels: Any, ratios: tuple[Fraction, Fraction, Fraction]) -> Any:
    counts = [-(-n * r.denominator // r.numerator) for n, r in zip(labels.shape, ratios, strict=True)]
    taps = [mode_taps(r, n, 0, count) for r, n, count in zip(ratios, labels.shape, counts, strict=True)]
    return resample_mode(labels, taps, (0, 0, 0))


@pytest.mark.parametrize("dtype", ["uint64", "uint32", "int64", "bool"])
def test_labels_are_those_with_most_of_the_cell(dtype: str) -> None:
    labels = np.random.default_rng(0).integers(0, 3, (6, 10, 15)).astype(dtype)
    ratios = Fraction(1), Fraction(2), Fraction(5, 2)
    found = mode(labels, ratios)
    assert found.dtype == dtype
    fine = np.repeat(labels, 2, axis=2)
    for z, y, x in np.ndindex(*found.shape):
        cell = fine[z, 2 * y : 2 * y + 2, 5 * x : 5 * x + 5].ravel()
        votes = np.array([(cell == value).sum() for value in cell])
        assert found[z, y, x] == cell[votes.argmax()]


def test_smaller_voxels_of_labels_take_the_nearest_and_large_numbers_survive() -> None:
    labels = np.array([[[2**64 - 1, 2**63 + 1]]], np.uint64)
    assert mode(labels, (Fraction(1), Fraction(1, 2), Fraction(2, 3))).tolist() == [
        [[2**64 - 1, 2**63 + 1, 2**63 + 1]] * 2
    ]


@pytest.mark.parametrize(
    ("source", "target", "shape", "message"),
    [
        ((50, 4, 4), (50, 4, 0.05), (9, 9, 9), "50 x 4 x 0.05 nm are below 0.1 nm"),
        ((50, 4, 4), (50, 4, float("nan")), (9, 9, 9), "below 0.1 nm"),
        ((50, 4, 4), (50, 4, 260), (9, 9, 9), "a factor above 64"),
        ((50, 40, 4), (50, 0.5, 4), (9, 9, 9), "a factor above 64"),
        ((50, 4, 4), (50, 1, 1), (1 << 20, 1 << 20, 1 << 20), r"above 2\^62 voxels"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(source, target, shape, message) -> None:
    with pytest.raises(ConfigError, match=f"--resample: .*{message}"):
        Resampling(source, target).check(shape, "--resample")


def test_sizes_that_differ_by_rounding_are_whole_factors() -> None:
    assert Resampling((0.1, 4.16, 5e-3 * 1000), (0.3, 8.32, 5)).ratios == tuple(map(Fraction, (3, 2, 1)))
