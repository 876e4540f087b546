"""TIFF is written, uncompressed: as ImageJ has it, or as OME-TIFF if the name ends in .ome.tif; both state sizes."""

from __future__ import annotations

import uuid
import warnings
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile

from volseg.errors import ConfigError, TargetError
from volseg.storage.writers.base import Layout, LayoutRequest, refuse_option, refuse_type
from volseg.storage.writers.flat_file import FlatFileWriter

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.storage.conversion_record import OutputEntry
    from volseg.storage.object_path import TargetPath
    from volseg.storage.place import Place

_IMAGEJ_TYPES = ("uint8", "uint16", "float32")
_OME_TYPES = ("uint8", "uint16", "uint32", "int16", "int32", "float32")
_CLASSIC_BYTES = 2**32 - 2**25
"""A TIFF of more needs 64-bit offsets, which ImageJ's own layout does not have."""


class TiffFormat:
    """TIFF files."""

    extra = ""

    def layout(self, request: LayoutRequest) -> Layout:
        given = {"--chunk": request.chunk, "--shard": request.shard, "--no-shards": not request.sharded}
        refuse_option("tiff", given)
        if is_ome(request.target):
            refuse_type("tiff", request.dtype, _OME_TYPES)
        else:
            if request.dtype not in _IMAGEJ_TYPES:
                raise ConfigError(
                    f"a TIFF of ImageJ holds no {request.dtype}; name the target NAME.ome.tif, choose a --dtype of "
                    f"{', '.join(_IMAGEJ_TYPES)}, or another --format"
                )
            size = prod(request.shape) * np.dtype(request.dtype).itemsize
            if size > _CLASSIC_BYTES:
                raise ConfigError(f"a TIFF of ImageJ holds no {size / 1e9:.1f} GB; name the target NAME.ome.tif")
        return Layout((1, *request.shape[1:]), None, request.place)

    def create(self, path: Path, output: OutputEntry, name: str, attributes: dict[str, Any]) -> None:
        # The name of the path in the end decides; that of the folder beside it is the same.
        ome = is_ome(path)
        metadata = _ome_metadata(output, name) if ome else _imagej_metadata(output.place)
        size = prod(output.shape) * np.dtype(output.dtype).itemsize
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of a file without data
                tifffile.imwrite(
                    path,
                    shape=output.shape,
                    dtype=output.dtype,
                    imagej=not ome,
                    ome=ome,
                    bigtiff=ome and size > _CLASSIC_BYTES,
                    photometric="minisblack",
                    resolution=None if ome else (1 / output.scale[2], 1 / output.scale[1]),
                    metadata=metadata,
                )
        except (OSError, ValueError) as error:
            raise TargetError(f"cannot create {path}: {error}; choose a writable folder") from error

    def open(self, path: Path, output: OutputEntry) -> FlatFileWriter:
        try:
            with tifffile.TiffFile(path) as tiff:
                offset, order = tiff.series[0].dataoffset, tiff.byteorder
        except (OSError, tifffile.TiffFileError) as error:
            raise TargetError(f"{path} cannot be read back: {error}; start again with --overwrite") from error
        if offset is None:
            raise TargetError(f"{path} is not stored in one piece; start again with --overwrite")
        return FlatFileWriter(path, offset, output.shape, np.dtype(output.dtype).newbyteorder(order))

    def owns(self, path: Path) -> bool:
        return path.is_file() and path.suffix.lower() in (".tif", ".tiff")


def is_ome(path: TargetPath) -> bool:
    """Whether a name asks for OME-TIFF."""
    return path.name.lower().endswith((".ome.tif", ".ome.tiff"))


def _imagej_metadata(place: Place) -> dict[str, Any]:
    metadata: dict[str, Any] = {"axes": "ZYX", "spacing": place.scale[0], "unit": "nm"}
    origins = zip("zyx", place.translation_voxels, strict=True)
    return metadata | {f"{axis}origin": -start for axis, start in origins if start}


def _ome_metadata(output: OutputEntry, name: str) -> dict[str, Any]:
    place, sections = output.place, output.shape[0]
    metadata: dict[str, Any] = {"axes": "ZYX", "Name": name}
    metadata["UUID"] = str(uuid.uuid5(uuid.NAMESPACE_URL, f"volseg {name} {output.shape}"))
    for axis, size in zip("ZYX", place.scale, strict=True):
        metadata |= {f"PhysicalSize{axis}": size, f"PhysicalSize{axis}Unit": "nm"}
    if any(place.translation):
        z, y, x = place.translation
        metadata["Plane"] = {
            "PositionZ": [z + section * place.scale[0] for section in range(sections)],
            "PositionY": [y] * sections,
            "PositionX": [x] * sections,
            **{f"Position{axis}Unit": ["nm"] * sections for axis in "ZYX"},
        }
    return metadata


FORMAT = TiffFormat()
