"""Reads volumes with the programs of others, in their environment.

python -m tests.interop.read_with_others FILES.json CHECKS.json
"""

from __future__ import annotations

import json
import shutil
import sys
import warnings
from dataclasses import replace
from importlib import import_module, metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.interop.files import Check, File, check, load_files, save

if TYPE_CHECKING:
    from collections.abc import Callable

    Read = tuple[Any, Any, Any]

_MAX_REASON = 100


def cloud_volume(path: str, driver: str) -> Read:
    volume = import_module("cloudvolume").CloudVolume(f"{driver}://file://{path}", progress=False, fill_missing=False)
    voxels = np.asarray(volume[:, :, :])[..., 0].transpose(2, 1, 0)
    size = [float(value) for value in volume.resolution[::-1]]
    return voxels, size, [a * b for a, b in zip(volume.voxel_offset[::-1], size, strict=True)]


def cloud_volume_n5(path: str) -> Read:
    """Read a dataset as level s0 of a group, which is what cloud-volume knows; it takes the size from the group."""
    group = Path(f"{path}-group")
    shutil.copytree(path, group / "s0")
    resolution = json.loads((group / "s0/attributes.json").read_text())["resolution"]
    about = {"resolution": resolution, "downsamplingFactors": [[1, 1, 1]]}
    (group / "attributes.json").write_text(json.dumps(about))
    return (*cloud_volume(str(group), "n5")[:2], None)


def webknossos(path: str) -> Read:
    dataset = import_module("webknossos").Dataset.open(path)
    (layer,) = dataset.layers.values()
    size = dataset.voxel_size.to_list()[::-1]
    first = layer.bounding_box.topleft.to_list()[::-1]
    voxels = layer.get_finest_mag().read()[0].transpose(2, 1, 0)
    return voxels, size, [a * b for a, b in zip(first, size, strict=True)]


def ngff_zarr(path: str) -> Read:
    image = import_module("ngff_zarr").from_ngff_zarr(path).images[0]
    assert image.dims == ("z", "y", "x")
    assert set(image.axes_units.values()) == {"nanometer"}
    size, start = ([values[name] for name in "zyx"] for values in (image.scale, image.translation))
    return np.asarray(image.data), size, start


def ome_zarr(path: str) -> Read:
    location = import_module("ome_zarr.io").parse_url(path)
    node = next(iter(import_module("ome_zarr.reader").Reader(location)()))
    axes = [(axis["name"], axis["unit"]) for axis in node.metadata["axes"]]
    assert axes == [(name, "nanometer") for name in "zyx"]
    scale, start = node.metadata["coordinateTransformations"][0]
    return np.asarray(node.data[0]), scale["scale"], start["translation"]


def zarr(path: str) -> Read:
    group = import_module("zarr").open_group(path, mode="r")
    scale, start = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"]
    return group["0"][:], scale["scale"], start["translation"]


def tensorstore_zarr(path: str) -> Read:
    store = import_module("tensorstore").open({"driver": "zarr3", "kvstore": f"file://{path}/0/"}).result()
    return store.read().result(), None, None


def tensorstore_n5(path: str) -> Read:
    store = import_module("tensorstore").open({"driver": "n5", "kvstore": f"file://{path}/"}).result()
    assert store.domain.labels == ("x", "y", "z")
    return np.asarray(store.read().result()).transpose(2, 1, 0), _sizes(store), None


def tensorstore_precomputed(path: str) -> Read:
    spec = {"driver": "neuroglancer_precomputed", "kvstore": f"file://{path}/"}
    store = import_module("tensorstore").open(spec).result()[..., 0]
    size, first = _sizes(store), store.domain.origin[::-1]
    return np.asarray(store.read().result()).transpose(2, 1, 0), size, np.multiply(first, size)


def _sizes(store: Any) -> list[float]:
    assert {unit.base_unit for unit in store.dimension_units[:3]} == {"nm"}
    return [unit.multiplier for unit in store.dimension_units[:3]][::-1]


def h5py(path: str) -> Read:
    with import_module("h5py").File(path) as file:
        data = file["volumes/raw"]
        return data[:], data.attrs["resolution"], data.attrs["offset"]


def tifffile(path: str) -> Read:
    with import_module("tifffile").TiffFile(path) as tiff:
        tags, about = tiff.pages.first.tags, tiff.imagej_metadata
        y, x = (tags[f"{axis}Resolution"].value for axis in "YX")
        size = (about["spacing"], y[1] / y[0], x[1] / x[0])
        start = [-float(about[f"{axis}origin"]) * one for axis, one in zip("zyx", size, strict=True)]
        return tiff.asarray(), size, start


def tifffile_ome(path: str) -> Read:
    library = import_module("tifffile")
    with library.TiffFile(path) as tiff:
        pixels = library.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        size, start = ([pixels[f"PhysicalSize{axis}"] for axis in "ZYX"], pixels["Plane"][0])
        return tiff.asarray(), size, [start[f"Position{axis}"] for axis in "ZYX"]


def pillow(path: str) -> Read:
    sections = import_module("PIL.ImageSequence").Iterator(import_module("PIL.Image").open(path))
    return np.stack([np.array(section) for section in sections]), None, None


READERS: dict[str, dict[str, Callable[[str], Read]]] = {
    "ome-zarr": {
        "zarr": zarr,
        "tensorstore": tensorstore_zarr,
        "ome-zarr": ome_zarr,
        "ngff-zarr": ngff_zarr,
        "cloud-volume": lambda path: cloud_volume(path, "zarr3"),
    },
    "precomputed": {
        "tensorstore": tensorstore_precomputed,
        "cloud-volume": lambda path: cloud_volume(path, "precomputed"),
    },
    "n5": {"tensorstore": tensorstore_n5, "cloud-volume": cloud_volume_n5},
    "hdf5": {"h5py": h5py},
    "imagej": {"tifffile": tifffile, "pillow": pillow},
    "ome-tiff": {"tifffile": tifffile_ome, "pillow": pillow},
    "webknossos": {"webknossos": webknossos},
}
"""Format -> program -> voxels (z, y, x), voxel size and place in nanometres, None where it states none."""


def known_fault(name: str, found: Check) -> str:
    """What a program does wrong, as its source shows; empty if that does not explain what it found."""
    if name != "cloud-volume":
        return ""
    if found.file.format == "n5" and not found.voxels and np.dtype(found.file.dtype).itemsize > 1:
        return "it takes the big-endian numbers of N5 for little-endian ones"
    if found.file.format == "ome-zarr" and found.voxels and found.size and found.start is False:
        return "its voxel_offset is along z, y, x, though its resolution is along x, y, z"
    return ""


def checked(file: File, name: str, read: Callable[[str], Read]) -> Check:
    program = f"{name} {metadata.version(name)}"
    try:
        found = check(file, program, *read(file.path))
        return replace(found, fault=known_fault(name, found))
    except Exception as error:  # of any program
        lines = str(error).strip().splitlines()
        return Check(file, program, error=f"{type(error).__name__}: {lines[0] if lines else ''}"[:_MAX_REASON])


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    found = [
        checked(file, name, read)
        for file in load_files(Path(sys.argv[1]))
        for name, read in READERS[file.format].items()
    ]
    save(Path(sys.argv[2]), found)
