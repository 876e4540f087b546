"""What labels say: values below 0, one-bit masks, exchanged classes; and raw volumes with other axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from PIL import Image

from volseg.blocks import Box
from volseg.config.train_tables import DataSettings, TargetSettings
from volseg.errors import ConfigError
from volseg.testing.factories import VOXEL_NM, blobs, make_volume
from volseg.training.data.labels import relabel_sequential
from volseg.training.data.polarity import polarity_warnings
from volseg.training.data.volumes import LabelledVolume, open_labelled

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (6, 20, 24)
WHOLE = Box.of_shape(SHAPE)


def mask(dtype: str = "uint8") -> np.ndarray:
    """255 in cells of 8 x 8 voxels, 0 on the lines between them."""
    y, x = np.arange(SHAPE[1]) % 8 > 0, np.arange(SHAPE[2]) % 8 > 0
    return np.broadcast_to(np.where(y[:, None] & x, 255, 0), SHAPE).astype(dtype)


def opened(folder: Path, stored: np.ndarray, **more: Any) -> LabelledVolume:
    make_volume(folder / "raw.zarr", SHAPE)
    zarr.create_array(folder / "labels", data=stored)
    data = {"raw": str(folder / "raw.zarr"), "labels": str(folder / "labels"), "train": (0, 4), **more}
    return open_labelled(DataSettings.model_validate(data), TargetSettings())


@pytest.mark.parametrize("membrane", ["zero", "nonzero"])
def test_labels_below_0_are_not_learned_from(tmp_path: Path, membrane: str) -> None:
    labels = mask("int32")
    labels[:, :, :3] = -1
    read = opened(tmp_path, labels, membrane=membrane).read_labels(WHOLE)
    np.testing.assert_array_equal(read < 0, labels < 0)
    assert set(np.unique(read)) == {-1, 0, 1}


def test_labels_of_which_one_class_is_known_are_refused(tmp_path: Path) -> None:
    labels = mask("int32")
    labels[labels > 0] = -1
    with pytest.raises(ConfigError, match="are 100% membrane in all sections"):
        opened(tmp_path, labels)


def test_ids_below_0_are_no_ids() -> None:
    assert relabel_sequential(np.array([-5, 0, 7, 9], np.int32)).tolist() == [-1, 0, 1, 2]


def test_one_bit_labels_are_read(tmp_path: Path) -> None:
    volume = opened(tmp_path, mask() > 0)
    np.testing.assert_array_equal(volume.read_labels(WHOLE), mask() == 0)
    assert volume.encoding.connected_cells(volume.labels, 0).max() > 1


def test_labels_of_mostly_membrane_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    right, wrong = opened(tmp_path, mask()), opened(tmp_path / "b", mask(), membrane="nonzero")
    assert polarity_warnings([right]) == []
    (warning,) = polarity_warnings([right, wrong])
    assert 'of the labelled voxels are membrane with data.membrane = "nonzero"' in warning


def test_axes_and_channel_of_the_raw_volume_are_stated(tmp_path: Path) -> None:
    stored = np.stack([blobs(SHAPE), blobs(SHAPE)[::-1]]).transpose(0, 3, 2, 1)
    zarr.create_array(tmp_path / "xyz", data=stored)
    volume = opened(
        tmp_path, mask(), raw=str(tmp_path / "xyz"), axes="x,y,z", channel=1, voxel_nm=VOXEL_NM, label_axes="z,y,x"
    )
    np.testing.assert_array_equal(volume.raw.read(WHOLE), blobs(SHAPE)[::-1])


def test_labels_in_a_folder_of_one_bit_images_are_read(tmp_path: Path) -> None:
    (tmp_path / "sections").mkdir()
    for z, section in enumerate(mask() > 0):
        Image.fromarray(section).save(tmp_path / "sections" / f"{z}.png")
    volume = opened(tmp_path, mask(), labels=str(tmp_path / "sections"))
    np.testing.assert_array_equal(volume.read_labels(WHOLE), mask() == 0)
    assert volume.encoding.connected_cells(volume.labels, 0).max() == 9
