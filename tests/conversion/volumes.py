"""Volumes of every format that a conversion writes, read by the libraries of others."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np
import tifffile
import zarr

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import ZyxFloat

NAMES = {
    "ome-zarr": "v.zarr",
    "unsharded": "flat.zarr",
    "hdf5": "v.h5",
    "tiff": "v.tif",
    "ome-tiff": "v.ome.tif",
    "n5": "v.n5",
    "precomputed": "v.precomputed",
    "webknossos": "wk",
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ome-zarr": {"chunk": (4, 16, 16), "shard": (8, 32, 32)},
    "unsharded": {"no_shards": True, "chunk": (8, 32, 32)},
    "n5": {"chunk": (8, 32, 32)},
    "precomputed": {"chunk": (8, 32, 32)},
    "webknossos": {"format": "webknossos", "chunk": (4, 16, 16), "shard": (8, 32, 32)},
}


class Found(NamedTuple):
    """Voxels (z, y, x), their size and the place of the first, in nanometres."""

    voxels: NDArray[Any]
    scale: tuple[float, ...]
    translation: tuple[float, ...]


def read(kind: str, path: Path) -> Found:
    """Read a volume as its own community does."""
    if kind in ("ome-zarr", "unsharded"):
        group: Any = zarr.open_group(path, mode="r")
        (level,) = group.attrs["ome"]["multiscales"][0]["datasets"]
        scale, *translation = level["coordinateTransformations"]
        start = translation[0]["translation"] if translation else (0.0, 0.0, 0.0)
        return Found(np.asarray(group["0"][:]), tuple(scale["scale"]), tuple(start))
    return globals()[f"_{kind.replace('-', '_')}"](path)


def _hdf5(path: Path) -> Found:
    with h5py.File(path) as file:
        data = file["volumes/raw"]
        return Found(data[:], tuple(data.attrs["resolution"]), tuple(data.attrs["offset"]))


def _tiff(path: Path) -> Found:
    with tifffile.TiffFile(path) as tiff:
        metadata, tags = tiff.imagej_metadata, tiff.pages.first.tags
        assert metadata is not None
        assert metadata["unit"] == "nm"
        y, x = (tags[f"{axis}Resolution"].value for axis in "YX")
        scale = (metadata["spacing"], y[1] / y[0], x[1] / x[0])
        start = tuple(-float(metadata.get(f"{axis}origin", 0)) * size for axis, size in zip("zyx", scale, strict=True))
        return Found(tiff.asarray(), scale, start)


def _ome_tiff(path: Path) -> Found:
    with tifffile.TiffFile(path) as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata or "")["OME"]["Image"]["Pixels"]
        planes = pixels.get("Plane", {})
        plane = planes[0] if isinstance(planes, list) else planes
        start = tuple(float(plane.get(f"Position{axis}", 0)) for axis in "ZYX")
        return Found(tiff.asarray(), tuple(float(pixels[f"PhysicalSize{axis}"]) for axis in "ZYX"), start)


def _n5(path: Path) -> Found:
    import tensorstore

    store = tensorstore.open({"driver": "n5", "kvstore": f"file://{path}/"}, open=True).result()
    document = json.loads((path / "attributes.json").read_bytes())
    assert document["axes"] == ["x", "y", "z"]
    voxels = np.asarray(store.read().result()).transpose(2, 1, 0)
    transform = document["transform"]  # of COSEM
    assert transform["axes"] == ["z", "y", "x"]
    assert transform["scale"] == document["resolution"][::-1]
    return Found(voxels, tuple(document["resolution"][::-1]), tuple(transform["translate"]))


def _precomputed(path: Path) -> Found:
    import tensorstore

    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/"}
    store = tensorstore.open(spec, open=True).result()
    (scale,) = json.loads((path / "info").read_bytes())["scales"]
    size = tuple(scale["resolution"][::-1])
    start = tuple(offset * n for offset, n in zip(scale["voxel_offset"][::-1], size, strict=True))
    return Found(np.asarray(store.read().result())[..., 0].transpose(2, 1, 0), size, start)


def _webknossos(path: Path) -> Found:
    properties = json.loads((path / "datasource-properties.json").read_bytes())
    (layer,) = properties["dataLayers"]
    box, (mag,) = layer["boundingBox"], layer["mags"]
    x, y, z = box["topLeft"]
    stored = zarr.open_array(path / mag["path"], mode="r")
    voxels = np.asarray(stored[0, x : x + box["width"], y : y + box["height"], z : z + box["depth"]])
    size = tuple(properties["scale"]["factor"][::-1])
    return Found(voxels.transpose(2, 1, 0), size, tuple(n * s for n, s in zip((z, y, x), size, strict=True)))


def _zip(folder: Path, voxels: NDArray[Any], scale: ZyxFloat, start: ZyxFloat) -> str:
    with zarr.storage.ZipStore(folder / "v.zarr.zip", mode="w") as store:
        zarr.create_array(store, data=voxels, chunks=(8, 32, 32), attributes={"resolution": scale, "offset": start})
    return str(folder / "v.zarr.zip")


def _mrc(folder: Path, voxels: NDArray[Any], scale: ZyxFloat, start: ZyxFloat) -> str:
    import mrcfile

    with mrcfile.new(folder / "v.mrc") as file:
        file.set_data(voxels.astype("uint16"))
        file.voxel_size = tuple(size * 10 for size in scale[::-1])  # in angstrom
        first = (round(at / size) for at, size in zip(start, scale, strict=True))
        file.header.nzstart, file.header.nystart, file.header.nxstart = first
    return str(folder / "v.mrc")


def _nrrd(folder: Path, voxels: NDArray[Any], scale: ZyxFloat, start: ZyxFloat) -> str:
    import nrrd

    header = {
        "space directions": np.diag(scale[::-1]), "space origin": start[::-1], "space dimension": 3,
        "space units": ["nm"] * 3,
    }  # fmt: skip
    nrrd.write(str(folder / "v.nrrd"), voxels.transpose(2, 1, 0), header)
    return str(folder / "v.nrrd")


def _nifti(folder: Path, voxels: NDArray[Any], scale: ZyxFloat, start: ZyxFloat) -> str:
    import nibabel

    affine = np.diag([*(size / 1000 for size in scale[::-1]), 1.0])
    affine[:3, 3] = [at / 1000 for at in start[::-1]]
    image = nibabel.Nifti1Image(voxels.transpose(2, 1, 0), affine)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, str(folder / "v.nii"))
    return str(folder / "v.nii")


LIBRARIES = {"zip": _zip, "mrc": _mrc, "nrrd": _nrrd, "nifti": _nifti}
"""What writes a volume of a format that a conversion reads only, into a folder; returns its path."""


def tree(folder: Path) -> dict[str, bytes]:
    """Content of all files below a path."""
    if folder.is_file():
        return {"": folder.read_bytes()}
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
