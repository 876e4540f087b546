"""Volumes that the libraries of each format write are read with equal voxels, size, place and axes."""

from __future__ import annotations

import gzip
import json
import pickle
import threading
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import zarr
from PIL import Image

from volseg.blocks import Box
from volseg.storage import LABELS, VolumeRef, open_readable, open_sections, source_marks
from volseg.storage.axes import DEFAULT_OPTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from volseg.blocks import ZyxFloat

tensorstore = pytest.importorskip("tensorstore")
mrcfile = pytest.importorskip("mrcfile")
nibabel = pytest.importorskip("nibabel")
nrrd = pytest.importorskip("nrrd")
wkw = pytest.importorskip("wkw")

SHAPE = (5, 18, 23)
VOXELS = np.random.default_rng(0).integers(1, 255, SHAPE, np.uint8)
XYZ = VOXELS.transpose(2, 1, 0)
NM = (50.0, 4.0, 6.0)
OFFSET = (3, 7, 11)
AT = tuple(a * b for a, b in zip(OFFSET, NM, strict=True))
ZERO = (0.0, 0.0, 0.0)


def n5(path: Path, compression: str = "gzip", extra: dict[str, Any] | None = None, voxels: Any = XYZ) -> str:
    metadata = {
        "dimensions": voxels.shape, "blockSize": [8, 8, 4], "dataType": str(voxels.dtype),
        "compression": {"type": compression}, **(extra or {}),
    }  # fmt: skip
    spec = {"driver": "n5", "kvstore": f"file://{path}/", "metadata": metadata}
    tensorstore.open(spec, create=True).result()[...] = voxels
    return str(path)


def n5_units(path: Path) -> str:
    return n5(path, extra={"axes": ["x", "y", "z"], "units": ["nm"] * 3, "resolution": [6.0, 4.0, 50.0]})


def n5_cosem(path: Path) -> str:
    n5(path / "s0", "raw")
    document = json.loads((path / "s0" / "attributes.json").read_text())
    document["transform"] = {
        "axes": ["z", "y", "x"], "units": ["nm"] * 3, "scale": list(NM), "translate": list(AT)
    }  # fmt: skip
    (path / "s0" / "attributes.json").write_text(json.dumps(document))
    (path / "attributes.json").write_text(json.dumps({"multiscales": [{"datasets": [{"path": "s0"}]}]}))
    return str(path)


def n5_named(path: Path, **transform: Any) -> str:
    """A transform along the stored axes, x, y, z."""
    placed = {"axes": ["x", "y", "z"], "units": ["nm"] * 3, "scale": list(NM[::-1]), "translate": list(AT[::-1])}
    return n5(path, extra={"transform": placed | transform} | ({} if transform else {"axes": ["x", "y", "z"]}))


def n5_viewer(path: Path) -> str:
    n5(path / "s0")
    resolution = {"unit": "um", "dimensions": [0.006, 0.004, 0.05]}
    document = json.loads((path / "s0" / "attributes.json").read_text()) | {"pixelResolution": resolution}
    (path / "s0" / "attributes.json").write_text(json.dumps(document))
    (path / "attributes.json").write_text("{}")
    return str(path)


def precomputed(path: Path, encoding: str = "raw", dtype: str = "uint8", *, sharded: bool = False) -> str:
    scale: dict[str, Any] = {
        "resolution": [6, 4, 50], "encoding": encoding, "chunk_size": [8, 8, 8], "size": XYZ.shape,
        "voxel_offset": OFFSET[::-1], "key": "s",
    }  # fmt: skip
    if encoding == "compressed_segmentation":
        scale["compressed_segmentation_block_size"] = [8, 8, 8]
    if sharded:
        scale["sharding"] = {
            "@type": "neuroglancer_uint64_sharded_v1", "hash": "identity", "minishard_bits": 1, "preshift_bits": 1,
            "shard_bits": 1, "data_encoding": "gzip",
        }  # fmt: skip
    kind = "segmentation" if encoding == "compressed_segmentation" else "image"
    spec = {
        "driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/", "scale_metadata": scale,
        "multiscale_metadata": {"type": kind, "data_type": dtype, "num_channels": 1},
    }  # fmt: skip
    tensorstore.open(spec, create=True).result()[..., 0] = XYZ.astype(dtype)
    return str(path)


def cloud_volume(path: Path) -> str:
    precomputed(path)
    for chunk in (path / "s").iterdir():
        chunk.with_name(f"{chunk.name}.gz").write_bytes(gzip.compress(chunk.read_bytes()))
        chunk.unlink()
    return str(path)


def mrc(path: Path, dtype: str = "int16", start: tuple[int, int, int] = OFFSET) -> str:
    with mrcfile.new(path.with_suffix(".mrc")) as file:
        file.set_data(VOXELS.astype(dtype))
        file.voxel_size = (60.0, 40.0, 500.0)
        file.header.nzstart, file.header.nystart, file.header.nxstart = start
    return str(path.with_suffix(".mrc"))


def mrc_turned(path: Path) -> str:
    """Columns along y, rows along x."""
    with mrcfile.new(path.with_suffix(".rec")) as file:
        file.set_data(VOXELS.transpose(0, 2, 1).astype(np.int16))
        file.header.mapc, file.header.mapr = 2, 1
        file.header.mx, file.header.my, file.header.mz = 23, 18, 5
        file.header.cella = (23 * 60.0, 18 * 40.0, 5 * 500.0)
    return str(path.with_suffix(".rec"))


def write_nrrd(path: Path, encoding: str = "raw", *, detached: bool = False, **header: Any) -> str:
    name = path.with_suffix(".nhdr" if detached else ".nrrd")
    nrrd.write(str(name), XYZ, {"encoding": encoding, **header}, detached_header=detached)
    return str(name)


DIRECTIONS = {
    "space directions": np.diag([6.0, 4.0, 50.0]), "space origin": list(AT[::-1]), "space dimension": 3,
    "space units": ["nm"] * 3,
}  # fmt: skip


def nifti(path: Path, suffix: str = ".nii", slope: float = 1.0) -> str:
    affine = np.diag([0.006, 0.004, 0.05, 1.0])
    affine[:3, 3] = [value / 1000 for value in AT[::-1]]
    image = nibabel.Nifti1Image(XYZ, affine)
    image.header.set_xyzt_units("micron")
    image.header.set_slope_inter(slope, 0)
    name = str(path) + suffix
    nibabel.save(image, name)
    return name


def zarr_zip(path: Path, inside: str = "") -> str:
    file = path.with_suffix(".zarr.zip")
    with zarr.storage.ZipStore(file, mode="w") as store:
        attributes = {"resolution": NM, "offset": AT}
        array = zarr.create_array(store, name=inside or None, data=VOXELS, chunks=(4, 8, 8), attributes=attributes)
        del array
    return f"{file}/{inside}" if inside else str(file)


def webknossos(path: Path, kind: str, mag: Any = "1") -> str:
    stop = [a + n for a, n in zip(OFFSET, SHAPE, strict=True)]
    whole = np.zeros((1, *[-(-n // 16) * 16 for n in stop[::-1]]), np.uint8)
    whole[0, OFFSET[2] : stop[2], OFFSET[1] : stop[1], OFFSET[0] : stop[0]] = XYZ
    folder = path / "color" / "1"
    if kind == "wkw":
        with wkw.Dataset.create(str(folder), wkw.Header(np.uint8, block_len=8, file_len=2, block_type=2)) as dataset:
            dataset.write((0, 0, 0), whole)
    else:
        zarr.create_array(folder, data=whole, chunks=(1, 16, 16, 16), zarr_format=3 if kind == "zarr3" else 2)
    layer = {
        "name": "color", "category": "color", "dataFormat": kind, "elementClass": "uint8",
        "boundingBox": {"topLeft": [str(n) for n in OFFSET[::-1]], "width": 23, "height": "18", "depth": 5},
        "mags": [{"mag": mag, "path": "./color/1", "axisOrder": {"c": 0, "x": 1, "y": 2, "z": "3"}}],
    }  # fmt: skip
    document = {"scale": {"factor": [6, 4, 50], "unit": "nanometer"}, "dataLayers": [layer]}
    (path / "datasource-properties.json").write_text(json.dumps(document))
    return str(path)


def ilastik(path: Path) -> str:
    with h5py.File(path.with_suffix(".h5"), "w") as file:
        dataset = file.create_dataset("exported_data", data=VOXELS[..., None])
        dataset.attrs["axistags"] = json.dumps({"axes": [{"key": key} for key in "zyxc"]})
        dataset.attrs["element_size_um"] = [0.05, 0.004, 0.006, 1.0]
    return str(path.with_suffix(".h5"))


def bmp(path: Path, pattern: str = "") -> str:
    path.mkdir()
    for z, section in enumerate(VOXELS):
        Image.fromarray(section).save(path / f"s{z}.bmp")
    if pattern:
        (path / "other.png").write_bytes(b"")
    return str(path / pattern) if pattern else str(path)


@dataclass(frozen=True)
class Case:
    write: Callable[[Path], str]
    voxel_nm: ZyxFloat | None = NM
    translation_nm: ZyxFloat | None = ZERO
    dtype: str = "uint8"
    dtypes: tuple[str, ...] | None = None
    factor: float = 1.0


CASES = {
    "n5": Case(n5, None, None),
    "n5 units": Case(n5_units),
    "n5 COSEM": Case(n5_cosem, translation_nm=AT),
    "n5 transform by name": Case(n5_named, translation_nm=AT),
    "n5 transform in F order": Case(lambda path: n5_named(path, order="F"), translation_nm=AT),
    "n5 viewer": Case(n5_viewer),
    "precomputed": Case(precomputed, translation_nm=AT),
    "precomputed sharded": Case(lambda path: precomputed(path, sharded=True), translation_nm=AT),
    "precomputed labels": Case(
        lambda path: precomputed(path, "compressed_segmentation", "uint64"), NM, AT, "uint64", LABELS
    ),
    "precomputed uint32": Case(
        lambda path: precomputed(path, "compressed_segmentation", "uint32", sharded=True), NM, AT, "uint32", LABELS
    ),
    "cloud-volume": Case(cloud_volume, translation_nm=AT),
    "mrc": Case(mrc, translation_nm=AT, dtype="int16"),
    "mrc float16": Case(lambda path: mrc(path, "float16"), NM, AT, "float32"),
    "mrc turned": Case(mrc_turned, dtype="int16"),
    "nrrd": Case(lambda path: write_nrrd(path, **DIRECTIONS), translation_nm=AT),
    "nrrd gzip": Case(lambda path: write_nrrd(path, "gzip", **DIRECTIONS), translation_nm=AT),
    "nrrd bzip2 beside": Case(lambda path: write_nrrd(path, "bzip2", detached=True, spacings=[6, 4, 50]), None, None),
    "nrrd units": Case(lambda path: write_nrrd(path, spacings=[6, 4, 50], units=["nm"] * 3)),
    "nifti": Case(nifti, translation_nm=AT),
    "nifti gzip": Case(lambda path: nifti(path, ".nii.gz"), translation_nm=AT),
    "zarr zip": Case(zarr_zip, translation_nm=AT),
    "zarr zip folder": Case(lambda path: zarr_zip(path, "a/raw"), translation_nm=AT),
    "wkw": Case(lambda path: webknossos(path, "wkw", "1-1-1"), translation_nm=AT),
    "webknossos zarr": Case(lambda path: webknossos(path, "zarr", 1), translation_nm=AT),
    "webknossos zarr3": Case(lambda path: webknossos(path, "zarr3", ["1", 1, 1]), translation_nm=AT),
    "ilastik": Case(ilastik),
    "bmp": Case(bmp, None, None),
    "pattern": Case(lambda path: bmp(path, "s*.bmp"), None, None),
}


@pytest.mark.parametrize("name", CASES)
def test_a_volume_is_read_as_its_library_wrote_it(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    location = case.write(tmp_path / "raw")
    kinds = {} if case.dtypes is None else {"dtypes": case.dtypes}
    volume = open_readable(location, **kinds)
    options = getattr(volume, "options", DEFAULT_OPTIONS)
    again = open_readable(volume.location, options=options, **kinds)
    expected = np.pad(VOXELS, 4, mode="reflect").astype(case.dtype)
    for opened in (volume, pickle.loads(pickle.dumps(volume)), again):
        assert (opened.shape, opened.dtype) == (SHAPE, case.dtype)
        np.testing.assert_array_equal(opened.read(Box((-4, -4, -4), tuple(n + 4 for n in SHAPE))), expected)
        np.testing.assert_array_equal(opened.read(Box((2, 9, 15), (3, 17, 23))), VOXELS[2:3, 9:17, 15:23])
    assert volume.voxel_nm == (None if case.voxel_nm is None else pytest.approx(case.voxel_nm))
    assert volume.translation_nm == (None if case.translation_nm is None else pytest.approx(case.translation_nm))
    np.testing.assert_array_equal(open_sections(location, **kinds).read(1, 4), VOXELS[1:4])
    if case.dtypes is None:
        assert VolumeRef(volume.location, options).open().shape == SHAPE
    marks = source_marks(volume.location)
    assert marks is not None
    assert marks.bytes > 0


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """The folder of the test behind http on this machine."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("scheme", ["", "n5://", "precomputed://"])
def test_n5_and_precomputed_are_read_behind_a_url(scheme: str, tmp_path: Path, url: str) -> None:
    (n5_units if scheme == "n5://" else precomputed)(tmp_path / "raw")
    volume = open_readable(f"{scheme}{url}/raw")
    assert volume.voxel_nm == NM
    for opened in (volume, open_readable(volume.location), pickle.loads(pickle.dumps(volume))):
        np.testing.assert_array_equal(opened.read(Box.of_shape(SHAPE)), VOXELS)
