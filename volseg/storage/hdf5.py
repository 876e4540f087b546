"""Volumes in HDF5 files, as `FILE.h5:DATASET`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from volseg.blocks import mirror_span
from volseg.errors import SourceError
from volseg.ops import reflect_gather
from volseg.storage.place import Placed, array_place
from volseg.storage.zarr_volume import GREY
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.place import Place

_LOCATION = re.compile(r"(?P<file>.+?\.(?:h5|hdf5|hdf))(?::(?P<dataset>.*))?", re.IGNORECASE)
_CACHE_BYTES = 64 * 2**20
"""Size of the cache of decoded chunks; HDF5's default is too small for neighbouring reads."""
_LISTED = 8


@dataclass(frozen=True)
class Hdf5Volume(Placed):
    """A dataset with axes (z, y, x).

    Attributes:
        location: FILE:DATASET, with the absolute path of the file.
        place: voxel size and translation.
    """

    location: str
    place: Place
    _dataset: h5py.Dataset

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        z, y, x = self._dataset.shape
        return z, y, x

    @property
    def dtype(self) -> str:
        """Name of the data type, such as `uint8`."""
        return str(self._dataset.dtype.name)

    @property
    def chunk(self) -> Zyx:
        """Unit of decoding, in voxels; a section if the dataset has no chunks."""
        z, y, x = self._dataset.chunks or (1, *self.shape[1:])
        return z, y, x

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box in the dataset's data type, mirrored beyond the edges of the volume.

        Raises:
            SourceError: the voxels cannot be read or decoded.
        """
        spans = [mirror_span(a, b, n) for a, b, n in zip(box.start, box.stop, self.shape, strict=True)]
        try:
            stored = self._dataset[tuple(slice(low, high) for low, high in spans)]
        except Exception as error:  # h5py and its filters raise errors of many kinds
            raise SourceError(f"cannot read {box} of {self.location}: {type(error).__name__}: {error}") from error
        native = np.asarray(stored, self.dtype)  # in the machine's byte order
        return reflect_gather(native, [low for low, _ in spans], box.start, box.stop, self.shape)

    def __reduce__(self) -> tuple[Any, tuple[str, tuple[str]]]:
        return open_hdf5, (self.location, (self.dtype,))


def is_hdf5(location: str) -> bool:
    """Whether a location names an HDF5 file, by its suffix: .h5, .hdf or .hdf5.

    >>> is_hdf5("sample_A.hdf:volumes/raw"), is_hdf5("raw.h5"), is_hdf5("raw.h5.zarr"), is_hdf5("a.h5/0")
    (True, True, False, False)
    """
    match = _LOCATION.fullmatch(location)
    return match is not None and not Path(match["file"]).is_dir()


def open_hdf5(location: str, dtypes: tuple[str, ...] = GREY) -> Hdf5Volume:
    """Open a dataset for reading.

    The voxel size is read from the attribute `resolution` or `voxel_size` (CREMI, funlib: nanometres) or
    `element_size_um` (ilastik), the translation from `offset`.

    Args:
        location: FILE:DATASET, or FILE if it has only one dataset of three dimensions.
        dtypes: supported data types; by default those of grey values.

    Raises:
        SourceError: nothing there, not HDF5, no such dataset, several datasets, or another data type or shape.
    """
    match = _LOCATION.fullmatch(location.removeprefix("file://"))
    if match is None or "://" in match["file"]:
        raise SourceError(f"{location} is not a path FILE.h5:DATASET; volseg does not read HDF5 from URLs")
    path = Path(match["file"]).absolute()
    if not path.is_file():
        raise SourceError(f"source {path} does not exist; check the path, or the mount")
    try:
        file = h5py.File(path, "r", rdcc_nbytes=_CACHE_BYTES, locking="best-effort")
    except OSError as error:
        raise SourceError(f"{path} cannot be read as HDF5: {error}") from error
    dataset = _select_dataset(file, path, match["dataset"])
    if dataset.dtype.name not in dtypes:
        raise SourceError(f"{path}:{dataset.name} holds {dataset.dtype.name}; supported types: {', '.join(dtypes)}")
    return Hdf5Volume(f"{path}:{dataset.name}", _place(dataset.attrs), dataset)


def _select_dataset(file: h5py.File, path: Path, name: str | None) -> h5py.Dataset:
    if name:
        node = file.get(name)
        if _is_volume(node):
            return node
    volumes = _volumes(file)
    if not name and len(volumes) == 1:
        return file[volumes[0]]
    if not volumes:
        raise SourceError(f"{path} holds no dataset of three dimensions (z, y, x)")
    listed = ", ".join(volumes[:_LISTED]) + (", .." if len(volumes) > _LISTED else "")
    hint = did_you_mean(name or "", volumes)
    problem = f"has no dataset {name} of three dimensions (z, y, x){hint}" if name else "holds several volumes"
    raise SourceError(f"{path} {problem}; add one of them after a colon: {listed}")


def _volumes(file: h5py.File) -> list[str]:
    names: list[str] = []
    file.visititems(lambda name, node: names.append(name) if _is_volume(node) else None)
    return names


def _is_volume(node: Any) -> bool:
    return isinstance(node, h5py.Dataset) and len(node.shape or ()) == 3 and 0 not in node.shape


def _place(attributes: Mapping[str, Any]) -> Place:
    return array_place({name: np.asarray(value).tolist() for name, value in attributes.items()})
