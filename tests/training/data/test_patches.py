"""Patches: determined by their index, equal to the volume, and never from validation sections."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.errors import ConfigError, TrainingError
from volseg.models.footprint import network_footprint
from volseg.ops import Normalization, read_reflected
from volseg.testing.factories import random_network
from volseg.training.data.labels import LabelEncoding
from volseg.training.data.patches import PatchDataset, patch_shapes
from volseg.training.data.statistics import TrainingStatistics, training_statistics
from volseg.training.data.volumes import LabelledVolume

if TYPE_CHECKING:
    from volseg.blocks import Box, Footprint, Zyx

PADDED = network_footprint(random_network("fusionnet", {"width": 2, "depth": 2}))
UNPADDED = network_footprint(random_network("unet", {"width": 2, "depth": 2}))
CHANNELS = network_footprint(random_network("unet", {"width": 1, "depth": 2, "in_channels": 3, "padded": True}))
DEEP = network_footprint(random_network("unet", {"width": 1, "depth": 1, "kernel": [3, 3, 3], "pool": [1, 2, 2]}))


@dataclass(frozen=True)
class MemoryVolume:
    """A volume in memory that records the boxes read from it."""

    voxels: np.ndarray
    location: str = "memory"
    voxel_nm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    chunk: Zyx = (1, 8, 8)
    boxes: list[Box] = field(default_factory=list)

    @property
    def shape(self) -> Any:
        return self.voxels.shape

    @property
    def dtype(self) -> str:
        return self.voxels.dtype.name

    def read(self, box: Box) -> np.ndarray:
        self.boxes.append(box)
        return read_reflected(self.voxels, box.start, box.stop)


def coordinates(shape: Zyx, train: Any = None, **more: Any) -> LabelledVolume:
    """Grey values encode their position; membrane is every third."""
    raw = (1 + np.arange(np.prod(shape))).reshape(shape)
    assert raw.max() < 2**24
    encoding = LabelEncoding("membrane", "nonzero")
    labels = MemoryVolume((raw % 3 == 0).astype(np.uint8))
    return LabelledVolume(
        MemoryVolume(raw.astype(np.float32)), labels, encoding, (1.0, 1.0, 1.0), train or ((0, shape[0]),), **more
    )


def unchanged(volumes: tuple[LabelledVolume, ...]) -> TrainingStatistics:
    """Constants that do not change grey values."""
    pairs = tuple((((0.0, 1.0),),) * len(volume.train) for volume in volumes)
    return TrainingStatistics(Normalization("fixed", (0.0, 1.0)), pairs)


def patches_of(
    *volumes: LabelledVolume, footprint: Footprint = PADDED, size: Zyx = (1, 32, 32), seed: int = 0
) -> PatchDataset:
    return PatchDataset(volumes, unchanged(volumes), *patch_shapes(footprint, size), seed)


def sections_of(patch: np.ndarray, shape: Zyx) -> set[int]:
    """The sections that a patch of `coordinates` contains."""
    return set(((patch.astype(int) - 1) // (shape[1] * shape[2])).ravel().tolist())


@pytest.mark.parametrize(
    ("footprint", "size", "input_shape", "output_shape"),
    [
        (PADDED, (1, 32, 32), (1, 32, 32), (1, 32, 32)),
        (UNPADDED, (1, 32, 32), (1, 72, 72), (1, 32, 32)),
        (CHANNELS, (1, 32, 32), (3, 32, 32), (1, 32, 32)),
        (DEEP, (4, 32, 32), (12, 48, 48), (4, 32, 32)),
    ],
)
def test_raw_and_labels_match_and_have_the_input_shape(footprint, size, input_shape, output_shape) -> None:
    assert patch_shapes(footprint, size)[1] == output_shape
    patches = patches_of(coordinates((9, 60, 61), ((2, 8),)), footprint=footprint, size=size)
    for number in range(12):
        raw, labels, weights, _ = patches[number]
        assert raw.shape == labels.shape == patches.input_shape
        assert (raw.dtype.name, labels.dtype.name, weights) == ("float32", "int32", None)
        np.testing.assert_array_equal(labels, raw.astype(int) % 3 == 0)
        assert sections_of(raw, (9, 60, 61)) <= set(range(2, 8))
    assert patches.input_shape[1:] == input_shape[1:]


def test_an_invalid_patch_size_is_refused_with_a_valid_one() -> None:
    with pytest.raises(
        ConfigError, match=r"patches.size \[1, 30, 32\] is not a multiple .* along its rows; use \[1, 32, 32\]"
    ):
        patch_shapes(PADDED, (1, 30, 32))
    with pytest.raises(ConfigError, match=r"patches.size \[4, 32, 32\] has 4 sections, .* use \[1, 32, 32\]"):
        patch_shapes(PADDED, (4, 32, 32))
    assert patch_shapes(UNPADDED, (1, 30, 30))[1] == (1, 32, 32)


@settings(max_examples=20)
@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=6), st.integers(0, 2**40))
def test_a_patch_depends_on_its_index_and_the_seed_only(numbers: list[int], seed: int) -> None:
    volumes = coordinates((3, 40, 40)), coordinates((2, 50, 30))
    first = [patches_of(*volumes, seed=seed)[number] for number in numbers]
    one = patches_of(*volumes, seed=seed)
    for number, patch in zip(reversed(numbers), reversed(first), strict=True):
        again = one[number]
        np.testing.assert_array_equal(again.raw, patch.raw)
        assert again.seed == patch.seed
        assert 0 <= patch.seed < 2**63
    assert one[numbers[0]].seed != patches_of(*volumes, seed=seed + 1)[numbers[0]].seed


def test_an_overhang_is_mirrored_and_at_most_a_quarter() -> None:
    shape = (1, 40, 44)
    volume = coordinates(shape)
    whole: Any = volume.raw
    padded = np.pad(whole.voxels, ((0, 0), (8, 8), (8, 8)), mode="reflect")[0]
    starts = set()
    for number in range(400):
        raw = patches_of(volume)[number].raw[0]
        box = whole.boxes[-1]
        y, x = box.start[1] + 8, box.start[2] + 8
        np.testing.assert_array_equal(raw, padded[y : y + 32, x : x + 32])
        starts.add((box.start[1], box.start[2]))
    assert {y for y, _ in starts} == set(range(-8, 40 - 32 + 9))
    assert {x for _, x in starts} == set(range(-8, 44 - 32 + 9))


def test_sections_and_ranges_smaller_than_a_patch_are_mirrored() -> None:
    volume = coordinates((9, 20, 30), ((3, 5),))
    for number in range(10):
        raw, labels, _, _ = patches_of(volume, footprint=DEEP, size=(4, 32, 32))[number]
        np.testing.assert_array_equal(labels, raw.astype(int) % 3 == 0)
        assert sections_of(raw, (9, 20, 30)) == {3, 4}
        assert (raw[0] == raw[2]).all()


def test_every_section_of_every_range_is_drawn_and_no_other() -> None:
    volume = coordinates((9, 40, 40), ((0, 2), (5, 8)))
    patches = patches_of(volume)
    drawn = [sections_of(patches[number].raw, (9, 40, 40)) for number in range(200)]
    assert set.union(*drawn) == {0, 1, 5, 6, 7}
    assert 0.5 < sum(bool(sections & {5, 6, 7}) for sections in drawn) / 200 < 0.7


def test_volumes_are_drawn_in_proportion_to_weight_and_size() -> None:
    small, large = coordinates((1, 40, 40), weight=6.0), coordinates((3, 40, 40))
    negative = replace(large, raw=MemoryVolume(-large.raw.voxels))  # type: ignore[attr-defined]
    patches = patches_of(small, negative)
    fraction = np.mean([patches[number].raw[0, 0, 0] > 0 for number in range(300)])
    assert 0.6 < fraction < 0.73


def test_a_patch_without_labelled_voxels_is_drawn_again() -> None:
    volume = coordinates((1, 400, 400))
    stored = np.full((1, 400, 400), 9, np.uint8)
    stored[:, :120, :120] = 1
    partly = replace(volume, labels=MemoryVolume(stored), encoding=LabelEncoding("membrane", "nonzero", ignore=9))
    patches = patches_of(partly)
    known = [bool((patches[number].labels >= 0).any()) for number in range(60)]
    assert sum(known) > 50
    nothing = replace(partly, labels=MemoryVolume(np.full((1, 400, 400), 9, np.uint8)))
    assert (patches_of(nothing)[0].labels == -1).all()


def test_a_patch_reads_its_own_voxels_only() -> None:
    volume = coordinates((50, 300, 300))
    patches_of(volume, footprint=CHANNELS)[0]
    for readable in (volume.raw, volume.labels):
        assert sum(box.voxels for box in readable.boxes) <= 3 * 32 * 32  # type: ignore[attr-defined]


def test_each_section_is_normalised_with_its_own_constants_also_if_mirrored() -> None:
    volume = coordinates((6, 40, 40), ((1, 5),))
    statistics = training_statistics([volume], "section")
    patches = PatchDataset((volume,), statistics, *patch_shapes(CHANNELS, (1, 32, 32)), 0)
    plain = patches_of(volume, footprint=CHANNELS)
    for number in range(12):
        for normalized, raw in zip(patches[number].raw, plain[number].raw, strict=True):
            (section,) = sections_of(raw, (6, 40, 40))
            mean, std = statistics.by_range[0][0][section - 1]
            np.testing.assert_allclose(normalized, (raw - mean) / std, atol=1e-4)


def test_grey_values_that_are_not_finite_are_refused() -> None:
    volume = coordinates((1, 40, 40))
    volume.raw.voxels[:] = np.inf  # type: ignore[attr-defined]
    with pytest.raises(TrainingError, match="memory contains NaN or infinity in section 0"):
        patches_of(volume)[0]
