"""Patches: random, oriented, mirrored, and truly those of the volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile

from tests.makers import blobs, make_volume, random_network
from volseg.errors import TrainingError
from volseg.models.footprint import network_footprint
from volseg.ops import Normalization
from volseg.training import DataSettings, LabelledVolume, load_labelled
from volseg.training.data import PatchSampler, oriented

if TYPE_CHECKING:
    from pathlib import Path

IDENTITY = Normalization("fixed", (0.0, 1.0))
PADDED = network_footprint(random_network("fusionnet", {"width": 2, "depth": 2}))
UNPADDED = network_footprint(random_network("unet", {"width": 2, "depth": 2}))


def coordinates(shape: tuple[int, int, int]) -> LabelledVolume:
    """A volume whose grey values say where they are, and whose labels are their parity."""
    raw = np.arange(np.prod(shape)).reshape(shape).astype(np.float32)
    return LabelledVolume(raw, raw % 2 == 1, (1.0, 1.0, 1.0))


@pytest.mark.parametrize(("footprint", "seen", "scored"), [(PADDED, 32, 32), (UNPADDED, 72, 32)])
def test_a_patch_and_its_target_are_the_same_place(footprint: Any, seen: int, scored: int) -> None:
    sampler = PatchSampler(coordinates((3, 90, 101)), IDENTITY, footprint, (1, 32, 32), seed=0)
    inputs, targets = sampler.batch(20)
    assert inputs.shape == (20, 1, seen, seen)
    assert targets.shape == (20, 1, scored, scored)
    crop = slice((seen - scored) // 2, (seen - scored) // 2 + scored)
    np.testing.assert_array_equal(inputs[:, :, crop, crop] % 2, targets)


@pytest.mark.parametrize(
    ("network", "arguments", "seen", "scored"),
    [
        ("unet", {"in_channels": 3, "padded": True}, (3, 32, 32), (1, 32, 32)),
        ("unet", {"kernel": [1, 3, 3], "pool": [1, 2, 2], "padded": True}, (1, 4, 32, 32), (1, 4, 32, 32)),
        ("unet", {"kernel": [3, 3, 3], "pool": [1, 2, 2], "depth": 1}, (1, 16, 48, 48), (1, 4, 32, 32)),
    ],
)
def test_patches_of_several_sections_are_of_one_place_too(network, arguments, seen, scored) -> None:
    footprint = network_footprint(random_network(network, {"width": 1, "depth": 2, **arguments}))
    sampler = PatchSampler(coordinates((9, 60, 61)), IDENTITY, footprint, (scored[-3], 32, 32), seed=0)
    inputs, targets = sampler.batch(6)
    assert inputs.shape[1:] == seen
    assert targets.shape[1:] == scored
    inner = tuple(slice((a - b) // 2, (a - b) // 2 + b) for a, b in zip(seen[-3:], scored[-3:], strict=True))
    np.testing.assert_array_equal(inputs[(..., *inner)] % 2, targets)


def test_sections_smaller_than_a_patch_are_mirrored() -> None:
    inputs, targets = PatchSampler(coordinates((2, 20, 70)), IDENTITY, PADDED, (1, 32, 32), seed=0).batch(8)
    assert inputs.shape == (8, 1, 32, 32)
    np.testing.assert_array_equal(inputs % 2, targets)


def test_the_seed_decides_and_places_and_orientations_vary() -> None:
    def draw(seed: int) -> np.ndarray:
        return PatchSampler(coordinates((4, 60, 60)), IDENTITY, PADDED, (1, 32, 32), seed=seed).batch(30)[0]

    np.testing.assert_array_equal(draw(1), draw(1))
    assert not np.array_equal(draw(1), draw(2))
    steps = {(int(p[0, 0, 1] - p[0, 0, 0]), int(p[0, 1, 0] - p[0, 0, 0])) for p in draw(1)}
    assert len(steps) == 8
    assert len({int(p.min()) // 3600 for p in draw(1)}) == 4


def test_the_eight_orientations_differ_and_keep_the_voxels() -> None:
    section = np.arange(6).reshape(2, 3)
    turned = [oriented(section, turns, flip=flip) for turns in range(4) for flip in (False, True)]
    assert len({(t.shape, t.tobytes()) for t in turned}) == 8
    assert all(sorted(t.ravel()) == list(range(6)) for t in turned)


def test_raw_and_labels_may_be_of_different_kinds(tmp_path: Path) -> None:
    make_volume(tmp_path / "raw.zarr", (3, 20, 20))
    labels = np.zeros((3, 20, 20), np.uint16)
    labels[:, 5:] = 7
    tifffile.imwrite(tmp_path / "labels.tif", labels, photometric="minisblack")
    where = {"raw": str(tmp_path / "raw.zarr"), "labels": str(tmp_path / "labels.tif")}
    loaded = load_labelled(DataSettings(**where, train=(0, 2)))
    np.testing.assert_array_equal(loaded.raw, blobs((3, 20, 20)))
    np.testing.assert_array_equal(loaded.membrane, labels == 0)
    assert loaded.voxel_nm == (30.0, 6.0, 6.0)
    other = load_labelled(DataSettings(**where, train=(0, 2), membrane="nonzero"))
    np.testing.assert_array_equal(other.membrane, labels != 0)


def test_a_stack_without_voxel_size_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "raw.tif", blobs((3, 20, 20)), photometric="minisblack")
    tifffile.imwrite(tmp_path / "labels.tif", blobs((3, 20, 20)) // 128, photometric="minisblack")
    where = {"raw": str(tmp_path / "raw.tif"), "labels": str(tmp_path / "labels.tif")}
    with pytest.raises(TrainingError, match=r"states no voxel size; give data.voxel_nm"):
        load_labelled(DataSettings(**where, train=(0, 2)))
    assert load_labelled(DataSettings(**where, train=(0, 2), voxel_nm=(50, 4, 4))).voxel_nm == (50.0, 4.0, 4.0)
