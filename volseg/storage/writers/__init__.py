"""Formats of volumes that a conversion writes, by name."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from volseg.registry import Registry

if TYPE_CHECKING:
    from volseg.storage.object_path import TargetPath
    from volseg.storage.writers.base import Format

FORMATS: Registry[Format] = Registry(
    "volseg.writers",
    "format",
    {
        "ome-zarr": "volseg.storage.writers.ome_zarr:FORMAT",
        "precomputed": "volseg.storage.writers.precomputed:FORMAT",
        "n5": "volseg.storage.writers.n5:FORMAT",
        "hdf5": "volseg.storage.writers.hdf5:FORMAT",
        "tiff": "volseg.storage.writers.tiff:FORMAT",
        "webknossos": "volseg.storage.writers.webknossos:FORMAT",
    },
)
"""Name -> format; plug-ins add to them."""

_SUFFIXES = {
    ".n5": "n5", ".precomputed": "precomputed", ".h5": "hdf5", ".hdf5": "hdf5", ".hdf": "hdf5", ".tif": "tiff",
    ".tiff": "tiff",
}  # fmt: skip


def format_of_name(path: TargetPath) -> str:
    """The format that the name of a new volume asks for.

    >>> from pathlib import Path
    >>> [format_of_name(Path(name)) for name in ("raw.zarr", "raw.N5", "raw.ome.tif", "raw")]
    ['ome-zarr', 'n5', 'tiff', 'ome-zarr']
    """
    return _SUFFIXES.get(PurePosixPath(path.name).suffix.lower(), "ome-zarr")
