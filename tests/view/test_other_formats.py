"""Volumes of other formats than Zarr in the viewer: served by this process, where they lie."""

from __future__ import annotations

import io
import zlib
from urllib.parse import urlsplit
from urllib.request import urlopen

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

import volseg
from volseg.view import open_viewer

pytest.importorskip("neuroglancer", reason='needs neuroglancer: pip install "volseg[view]"')
SHAPE = (4, 24, 40)
VOXELS = np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)


def hdf5(path, voxels=VOXELS):
    with h5py.File(path / "raw.h5", "w") as file:
        dataset = file.create_dataset("raw", data=voxels)
        dataset.attrs["resolution"], dataset.attrs["offset"] = (50.0, 4.0, 6.0), (100.0, 40.0, 30.0)
    return str(path / "raw.h5")


def sections(path):
    (path / "sections").mkdir()
    for z, section in enumerate(VOXELS):
        Image.fromarray(section).save(path / "sections" / f"{z}.png")
    return str(path / "sections" / "*.png")


def zipped(path):
    with zarr.storage.ZipStore(path / "raw.zarr.zip", mode="w") as store:
        zarr.create_array(store, data=VOXELS)
    return str(path / "raw.zarr.zip")


def n5(path):
    return convert(hdf5(path), path / "raw.n5")


def precomputed(path):
    return convert(hdf5(path), path / "raw.precomputed")


def convert(source, target):
    pytest.importorskip("tensorstore", reason='needs tensorstore: pip install "volseg[formats]"')
    return volseg.convert(source, target, cluster="serial").target


def chunk(session, layer, start, stop, factor=(1, 1, 1)):
    """A chunk (z, y, x) as the browser asks for it."""
    url = session.viewer.shared_state.raw_state["layers"][layer]["source"]["url"]
    assert url.startswith("python://volume/")
    parts, key = urlsplit(session.url), url.removeprefix("python://volume/")
    numbers = "/".join(",".join(map(str, values)) for values in (factor, start, stop))
    with urlopen(f"http://{parts.netloc}/neuroglancer/npz/{key}/{numbers}", timeout=10) as answer:
        return np.load(io.BytesIO(zlib.decompress(answer.read())))


@pytest.mark.parametrize("write", [hdf5, sections, zipped, n5, precomputed])
def test_the_voxels_of_any_format_are_served(write, tmp_path):
    with open_viewer([write(tmp_path)]) as session:
        read = chunk(session, 0, (1, 8, 0), (3, 24, 40))
    np.testing.assert_array_equal(read, VOXELS[1:3, 8:24])


@pytest.mark.parametrize("write", [hdf5, n5, precomputed])
def test_a_volume_lies_where_its_metadata_say(write, tmp_path):
    with open_viewer([write(tmp_path)]) as session:
        state = session.viewer.shared_state.raw_state
    transform = state["layers"][0]["source"]["transform"]
    assert transform["outputDimensions"] == {"z": [50.0, "nm"], "y": [4.0, "nm"], "x": [6.0, "nm"]}
    assert [row[-1] for row in transform["matrix"]] == [2.0 - 0.5, 10.0 - 0.5, 5.0 - 0.5]


def test_masks_are_drawn_as_zero_and_one_and_coarse_labels_are_no_means(tmp_path):
    zarr.create_array(tmp_path / "truth.zarr", data=VOXELS > 128)
    labels = tmp_path / "labels"
    labels.mkdir()
    ids = hdf5(labels, VOXELS.astype(np.uint64) << 40)
    with open_viewer([hdf5(tmp_path), str(tmp_path / "truth.zarr"), ids]) as session:
        layers = {layer["name"]: layer for layer in session.viewer.shared_state.raw_state["layers"]}
        order = list(layers)
        mask = chunk(session, order.index("truth"), (0, 0, 0), SHAPE)
        coarse = chunk(session, order.index("raw.h5 2"), (0, 0, 0), (4, 12, 20), (1, 2, 2))
    assert (mask.dtype, layers["truth"]["type"], layers["raw.h5 2"]["type"]) == (
        "uint8",
        "segmentation",
        "segmentation",
    )
    np.testing.assert_array_equal(mask, VOXELS > 128)
    assert coarse.dtype == np.uint64
    np.testing.assert_array_equal(coarse, VOXELS[:, ::2, ::2].astype(np.uint64) << 40)
