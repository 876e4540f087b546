"""Volumes of the test pattern that volseg converts, and those of others that it reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import volseg
from tests.interop.files import SHAPE, SIZE, START, TYPES, Check, File, check, pattern
from volseg.blocks import Box
from volseg.conversion.source import TYPES as READ_TYPES
from volseg.errors import ConfigError
from volseg.storage import open_readable
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from pathlib import Path

VOLSEG = f"volseg {volseg.__version__}"
TARGETS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("ome-zarr", "sharded", "{}.zarr", {"chunk": (4, 16, 16), "shard": (8, 32, 32)}),
    ("ome-zarr", "`--no-shards`", "{}-flat.zarr", {"no_shards": True, "chunk": (8, 32, 32)}),
    ("precomputed", "", "{}.precomputed", {"chunk": (8, 32, 32)}),
    ("n5", "", "{}.n5", {"chunk": (8, 32, 32)}),
    ("hdf5", "", "{}.h5", {}),
    ("imagej", "", "{}.tif", {}),
    ("ome-tiff", "", "{}.ome.tif", {}),
    ("webknossos", "", "{}-wk", {"format": "webknossos", "chunk": (4, 16, 16), "shard": (8, 32, 32)}),
)
"""Format, variant, name and options of what is written."""


def write_all(folder: Path) -> list[File]:
    """Convert a volume of each type to each format that takes it."""
    files = []
    for dtype in TYPES:
        source = folder / f"{dtype}.raw.zarr"
        make_volume(source, SHAPE, voxels=pattern(dtype), voxel_nm=SIZE, translation_nm=START, chunk=(8, 32, 32))
        for kind, variant, name, options in TARGETS:
            target = folder / name.format(dtype)
            try:
                volseg.convert(source, target, cluster="serial", **options)
            except ConfigError as error:
                if "--dtype" not in str(error):
                    raise
                continue
            files.append(File(kind, str(target), dtype, VOLSEG, variant))
    return files


def read(file: File) -> Check:
    """Read a volume; what it does not state must be left open."""
    try:
        volume = open_readable(file.path, READ_TYPES)
        voxels = volume.read(Box.of_shape(volume.shape))
    except volseg.VolsegError as error:
        return Check(file, VOLSEG, error=str(error))
    found = [volume.voxel_nm if file.size else None, volume.translation_nm if file.start else None]
    if volume.dtype != file.dtype:
        return Check(file, VOLSEG, error=f"it is read as {volume.dtype}")
    if (file.size and found[0] is None) or (file.start and found[1] is None):
        return Check(file, VOLSEG, error="it states no place")
    return check(file, VOLSEG, voxels, *found)
