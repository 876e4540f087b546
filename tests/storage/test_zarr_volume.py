"""Reading: any Zarr, mirrored beyond the edges of the volume, or a refusal in one line."""

from __future__ import annotations

import pickle
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from volseg.blocks import Box
from volseg.errors import ConfigError, SourceError
from volseg.ops import Normalization, moments
from volseg.storage import open_volume, volume_fingerprint
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.storage.zarr_metadata import channel_names
from volseg.testing.factories import blobs, constants_of, make_volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
from typing import Any


@pytest.fixture(scope="module")
def volume_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_volume(tmp_path_factory.mktemp("volume") / "raw.zarr", (5, 20, 33), chunk=(2, 8, 8))


@pytest.fixture(scope="module")
def padded() -> np.ndarray:
    """The volume with 160 mirrored voxels around it."""
    return np.pad(blobs((5, 20, 33)), 160, mode="reflect")


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.tuples(*[st.integers(-60, 70)] * 3), st.tuples(*[st.integers(1, 80)] * 3))
def test_a_read_beyond_the_volume_is_mirrored(volume_path: Path, padded: np.ndarray, start: tuple, size: tuple) -> None:
    volume = open_volume(str(volume_path))
    stop = tuple(a + n for a, n in zip(start, size, strict=True))
    expected = padded[tuple(slice(a + 160, b + 160) for a, b in zip(start, stop, strict=True))]
    np.testing.assert_array_equal(volume.read(Box(start, stop)), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_zarr_2_and_3_arrays_of_every_type_are_read(tmp_path: Path, dtype: str, zarr_format: int) -> None:
    voxels = blobs((4, 9, 10), dtype=dtype)
    kind: Any = {"dtype": dtype, "zarr_format": zarr_format}
    array = zarr.create_array(tmp_path / "a", shape=voxels.shape, chunks=(2, 4, 4), **kind)
    array[:] = voxels
    volume = open_volume(str(tmp_path / "a"))
    assert (volume.shape, volume.dtype, volume.chunk, volume.voxel_nm) == ((4, 9, 10), dtype, (2, 4, 4), None)
    np.testing.assert_array_equal(volume.read(Box.of_shape(volume.shape)), voxels)


@pytest.mark.parametrize(
    ("version", "unit", "scale", "expected"),
    [
        ("0.4", "nanometer", [50.0, 4.0, 4.0], (50.0, 4.0, 4.0)),
        ("0.5", "micrometer", [0.05, 0.004, 0.004], (50.0, 4.0, 4.0)),
        ("0.5", None, [1.0, 1.0, 1.0], None),
    ],
)
def test_the_voxel_size_of_ome_zarr_is_read_in_nanometres(tmp_path, version, unit, scale, expected) -> None:
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=2 if version == "0.4" else 3)
    group.create_array("s0", shape=(4, 8, 8), chunks=(4, 8, 8), dtype="uint8")
    axes = [{"name": name, "type": "space"} | ({"unit": unit} if unit else {}) for name in "zyx"]
    transforms = [{"type": "scale", "scale": scale}]
    scales = [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": transforms}]}]
    group.attrs.update(
        {"multiscales": scales} if version == "0.4" else {"ome": {"version": "0.5", "multiscales": scales}}
    )
    for location in (tmp_path / "v.zarr", tmp_path / "v.zarr" / "s0"):
        voxel_nm = open_volume(str(location)).voxel_nm
        assert voxel_nm is None if expected is None else voxel_nm == pytest.approx(expected)


def test_leading_axes_of_one_are_skipped(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(1, 1, 3, 4, 5), chunks=(1, 1, 3, 4, 5), dtype="uint8")
    array[:] = 7
    assert open_volume(str(tmp_path / "a")).read(Box((0, 0, -1), (3, 4, 6))).shape == (3, 4, 7)


NAMES = ("affinity_z", "affinity_y", "affinity_x")


@pytest.fixture(scope="module")
def channels_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three volumes along a channel axis; all voxels of each are its index."""
    path, shape = tmp_path_factory.mktemp("channels") / "affinities.zarr", (2, 8, 8)
    target = create_volume(
        path, shape=shape, shard=shape, chunk=shape, dtype="uint8", place=Place.of_nm((30, 6, 6)), channels=NAMES
    )
    target.write(Box.of_shape(shape), np.arange(3, dtype=np.uint8)[:, None, None, None] * np.ones(shape, np.uint8))
    return path


@pytest.mark.parametrize("inside", ["", "/0"])
@pytest.mark.parametrize(("channel", "index"), [("affinity_x", 2), (1, 1), ("2", 2), ("affinity_z", 0)])
def test_a_channel_is_a_volume_also_in_another_process(channels_path, inside, channel, index) -> None:
    volume = open_volume(f"{channels_path}{inside}", channel=channel)
    assert (volume.shape, volume.chunk, volume.voxel_nm) == ((2, 8, 8), (2, 8, 8), (30, 6, 6))
    for one in (volume, pickle.loads(pickle.dumps(volume))):
        assert set(one.read(Box((-1, 0, 0), (2, 9, 8))).ravel()) == {index}


@pytest.mark.parametrize("inside", ["", "/0"])
def test_a_missing_channel_is_refused_with_the_names_of_the_channels(channels_path, inside) -> None:
    assert channel_names(f"{channels_path}{inside}") == NAMES
    with pytest.raises(SourceError, match=r"holds 3 channels.*choose one of them \(affinity_z, affinity_y, aff"):
        open_volume(f"{channels_path}{inside}")
    for absent in ("membrane", 3, -1):
        with pytest.raises(ConfigError, match=f"no channel {absent}; choose from affinity_z, affinity_y, affinity_x"):
            open_volume(f"{channels_path}{inside}", channel=absent)


def test_channels_without_names_are_numbers(tmp_path: Path) -> None:
    array = zarr.create_array(tmp_path / "a", shape=(1, 2, 3, 4, 5), chunks=(1, 2, 3, 4, 5), dtype="uint8")
    array[:, 1] = 7
    assert channel_names(str(tmp_path / "a")) == ()
    assert open_volume(str(tmp_path / "a"), channel=1).read(Box.of_shape((3, 4, 5))).min() == 7
    with pytest.raises(SourceError, match=r"choose one of them \(0, 1\)"):
        open_volume(str(tmp_path / "a"))


def test_a_volume_without_channels_has_only_channel_0(volume_path: Path) -> None:
    assert open_volume(str(volume_path), channel=0).channel is None
    with pytest.raises(ConfigError, match="no channel membrane; choose from 0"):
        open_volume(str(volume_path), channel="membrane")


def test_a_volume_is_pickled_as_its_location(volume_path: Path) -> None:
    volume = open_volume(str(volume_path))
    assert len(pickle.dumps(volume)) < 500
    assert pickle.loads(pickle.dumps(volume)).shape == volume.shape


def _folder(path: Path) -> str:
    path.mkdir()
    return str(path)


def _group(path: Path) -> str:
    zarr.open_group(path, mode="w").create_array("b", shape=(2, 2, 2), chunks=(2, 2, 2), dtype="uint8")
    return str(path)


def _array(path: Path, shape: tuple[int, ...], dtype: str = "uint8") -> str:
    zarr.create_array(path, shape=shape, chunks=tuple(max(n, 1) for n in shape), dtype=dtype)
    return str(path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: str(p / "none.zarr"), "source .*none.zarr does not exist"),
        (lambda p: _folder(p / "empty"), "empty is not a Zarr; .*volseg convert"),
        (lambda p: _array(p / "flat", (8, 8)), r"shape \(8, 8\), which is not one volume"),
        (lambda p: _array(p / "many", (2, 3, 8, 8)), r"holds 2 channels in shape \(2, 3, 8, 8\)"),
        (lambda p: _array(p / "nothing", (0, 8, 8)), "no voxels"),
        (lambda p: _array(p / "complex", (2, 8, 8), "complex64"), "holds complex64; supported types: uint8"),
        (
            lambda p: _group(p / "g"),
            "a Zarr group without OME-Zarr levels; name one of its volumes, such as .*/g/b: b",
        ),
        (lambda p: "nowhere://x/y", "cannot open nowhere://x/y"),
    ],
)
def test_other_locations_are_refused_in_one_line(tmp_path: Path, make, message) -> None:
    with pytest.raises(SourceError, match=message) as caught:
        open_volume(make(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A folder behind http on this machine."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_volume_behind_a_url_is_read(tmp_path: Path, web: str, zarr_format: Any) -> None:
    voxels = blobs((4, 20, 20))
    group = zarr.open_group(tmp_path / "v.zarr", mode="w", zarr_format=zarr_format)
    group.create_array("s0", shape=voxels.shape, chunks=(2, 8, 8), dtype="uint8")[:] = voxels
    axes = [{"name": name, "type": "space", "unit": "nanometer"} for name in "zyx"]
    transforms = [{"type": "scale", "scale": [50.0, 4.0, 4.0]}]
    scales: dict[str, Any] = {
        "multiscales": [{"axes": axes, "datasets": [{"path": "s0", "coordinateTransformations": transforms}]}]
    }
    group.attrs.update(scales if zarr_format == 2 else {"ome": {"version": "0.5", **scales}})
    for location in (f"{web}/v.zarr", f"{web}/v.zarr/s0"):
        volume = open_volume(location)
        assert volume.voxel_nm == (50.0, 4.0, 4.0)
        expected = np.pad(voxels, [(1, 0), (2, 0), (0, 0)], mode="reflect")[:, :, 3:]
        np.testing.assert_array_equal(volume.read(Box((-1, -2, 3), (4, 20, 20))), expected)
    with pytest.raises(SourceError, match="none.zarr is not a Zarr"):
        open_volume(f"{web}/none.zarr")


def test_a_chunk_that_cannot_be_decoded_is_a_clear_error(tmp_path: Path) -> None:
    path = make_volume(tmp_path / "raw.zarr", (4, 32, 32))
    shard = next(file for file in (path / "0" / "c").rglob("*") if file.is_file())
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(SourceError, match="cannot read 0:4,0:32,0:32 of"):
        open_volume(str(path)).read(Box.of_shape((4, 32, 32)))


def test_the_fingerprint_distinguishes_volumes_and_not_paths(tmp_path: Path) -> None:
    voxels = blobs((5, 40, 40))
    same = [make_volume(tmp_path / f"{n}.zarr", voxels.shape, voxels=voxels, chunk=(n, 16, 16)) for n in (1, 5)]
    other = make_volume(tmp_path / "other.zarr", voxels.shape, voxels=voxels + np.uint8(1))
    first, second, third = (volume_fingerprint(open_volume(str(path))) for path in (*same, other))
    assert first == second != third


def test_statistics_of_sections_and_volume_are_those_of_the_voxels(tmp_path: Path) -> None:
    voxels = blobs((5, 40, 50))
    volume = open_volume(str(make_volume(tmp_path / "raw.zarr", voxels.shape, voxels=voxels)))
    sections = constants_of(volume, Normalization("section", (0.0, 1.0)))
    np.testing.assert_allclose(sections, [moments(section) for section in voxels])
    (whole,) = constants_of(volume, Normalization("volume", (0.0, 1.0)))
    np.testing.assert_allclose(whole, moments(voxels))
    assert constants_of(volume, Normalization("fixed", (3.0, 4.0))) == ((3.0, 4.0),)
