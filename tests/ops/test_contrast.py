from __future__ import annotations

import numpy as np

from volseg.ops.contrast import grey_range
from volseg.view.viewer import sampled_grey_range


def test_fill_and_unreal_values_do_not_count():
    values = np.concatenate([np.zeros(500), np.full(10, np.nan), np.linspace(2, 3, 1001)])
    low, high = grey_range(values) or (0, 0)
    assert 2 < low < 2.01
    assert 2.99 < high < 3


def test_an_image_of_one_grey_has_no_range():
    assert grey_range(np.full((4, 4), 7, np.uint16)) is None
    assert grey_range(np.full((4, 4), 7, np.float32)) is None


def test_the_middle_of_a_volume_speaks_for_it(make_volume):
    voxels = np.zeros((4, 32, 64), np.uint16)
    voxels[2, :, :32], voxels[2, :, 32:] = 1000, 3000
    path = make_volume("a.zarr", voxels)
    assert sampled_grey_range(path / "0", (4, 32, 64)) == (1000, 3000)


def test_each_channel_has_a_contrast_of_its_own(make_volume):
    ramp = np.broadcast_to(np.arange(1, 65, dtype=np.uint8), (4, 32, 64))
    path = make_volume("a.zarr", np.stack([ramp, ramp * 2]), channels=("one", "other"))
    (_, first), (_, second) = (sampled_grey_range(path / "0", (4, 32, 64), channel) or (0, 0) for channel in (0, 1))
    assert second == 2 * first


def test_a_volume_that_cannot_be_read_keeps_the_whole_range(tmp_path):
    assert sampled_grey_range(tmp_path / "absent", (4, 32, 64)) is None
