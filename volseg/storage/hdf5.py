"""Volumes in HDF5 files, as `FILE.h5:DATASET`."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from volseg.errors import SourceError
from volseg.storage.axes import (
    DEFAULT_OPTIONS,
    AxisLayout,
    ReadOptions,
    at_channel,
    axis_layout,
    named_axes,
    refuse_other_order,
)
from volseg.storage.hdf5_links import node_within, refuse_other_files
from volseg.storage.place import Placed, array_place
from volseg.storage.watch import FileWatch, Watched
from volseg.storage.zarr_volume import GREY
from volseg.text import did_you_mean, parse_object

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx
    from volseg.storage.place import Place

_LOCATION = re.compile(r"(?P<file>.+?\.(?:h5|hdf5|hdf))(?::(?P<dataset>.*))?", re.IGNORECASE)
_CACHE_BYTES = 64 * 2**20
"""Size of the cache of decoded chunks; HDF5's default is too small for neighbouring reads."""
_LISTED = 8
_MAX_GROUPS = 32
_MAX_AXES = 5
"""Time, channel, z, y, x."""


@dataclass(frozen=True)
class Hdf5Volume(Placed, Watched):
    """A dataset with axes z, y, x among others of length 1.

    Attributes:
        location: FILE:DATASET, with the absolute path of the file.
        place: voxel size and translation.
        layout: where z, y and x lie in the dataset, and the channel.
        options: what the user states of it.
    """

    location: str
    place: Place
    _dataset: h5py.Dataset
    layout: AxisLayout
    options: ReadOptions = DEFAULT_OPTIONS
    _watch: FileWatch | None = field(default=None, repr=False, compare=False)

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.layout.volume_shape

    @property
    def dtype(self) -> str:
        """Name of the data type, such as `uint8`."""
        return str(self._dataset.dtype.name)

    @property
    def chunk(self) -> Zyx:
        """Unit of decoding, in voxels; a section if the dataset has no chunks."""
        return self.layout.zyx(self._dataset.chunks) if self._dataset.chunks else (1, *self.shape[1:])

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box in the dataset's data type, mirrored beyond the edges of the volume.

        Raises:
            SourceError: the voxels cannot be read or decoded.
        """
        try:
            return self.layout.read(self._dataset.__getitem__, box, self.dtype)
        except Exception as error:  # h5py and its filters raise errors of many kinds
            raise SourceError(f"cannot read {box} of {self.location}: {type(error).__name__}: {error}") from error

    def __reduce__(self) -> tuple[Any, tuple[str, tuple[str], ReadOptions]]:
        return open_hdf5, (self.location, (self.dtype,), self.options)


def is_hdf5(location: str) -> bool:
    """Whether a location names an HDF5 file, by its suffix: .h5, .hdf or .hdf5.

    >>> is_hdf5("sample_A.hdf:volumes/raw"), is_hdf5("raw.h5"), is_hdf5("raw.h5.zarr"), is_hdf5("a.h5/0")
    (True, True, False, False)
    """
    match = _LOCATION.fullmatch(location)
    return match is not None and not Path(match["file"]).is_dir()


def open_hdf5(location: str, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS) -> Hdf5Volume:
    """Open a dataset for reading.

    The voxel size is read from the attribute `resolution` or `voxel_size` (CREMI, funlib: nanometres) or
    `element_size_um` (ilastik), the translation from `offset`.

    Args:
        location: FILE:DATASET, or FILE if it has only one dataset of three dimensions.
        dtypes: supported data types; by default those of grey values.
        options: axes and channel, if the dataset has others than z, y, x.

    Raises:
        SourceError: nothing there, not HDF5, no such dataset, several datasets, another data type or shape, or voxels
            that lie in other files.
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
    try:
        dataset = _select_dataset(file, path, match["dataset"])
        refuse_other_files(dataset, path)
        attributes = {name: np.asarray(value).tolist() for name, value in dataset.attrs.items()}
        _ = dataset.dtype
    except SourceError:
        raise
    except Exception as error:  # h5py raises errors of many kinds for damaged files
        raise SourceError(f"{path} is damaged, or no HDF5 that can be read ({error}); copy it again") from error
    if dataset.dtype.name not in dtypes:
        raise SourceError(f"{path}:{dataset.name} holds {dataset.dtype.name}; supported types: {', '.join(dtypes)}")
    where = f"{path}:{dataset.name}"
    layout = axis_layout(where, dataset.shape, _axis_names(dataset, attributes), options.axes)
    if options.axes is None:
        refuse_other_order(layout, where)
    place = array_place(attributes, layout)
    layout = at_channel(layout, where, options.channel)
    return Hdf5Volume(where, place, dataset, layout, options, FileWatch([path], where))


def _axis_names(dataset: h5py.Dataset, attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the axes: of ilastik's axis tags, of daisy, or of HDF5's dimension scales; empty if there are none."""
    tags: list[Any] = []
    with suppress(ValueError, KeyError, TypeError):
        tags = [axis["key"] for axis in parse_object(attributes["axistags"])["axes"]]
    return named_axes(len(dataset.shape), tags, attributes.get("axis_names"), [axis.label for axis in dataset.dims])


def _select_dataset(file: h5py.File, path: Path, name: str | None) -> h5py.Dataset:
    if name:
        node = node_within(file, name, path)
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
    """Names of the datasets of three axes, or else of those with channels and times too."""
    names: dict[bool, list[str]] = {True: [], False: []}

    def visit(name: str, node: Any) -> None:
        if name.count("/") > _MAX_GROUPS:
            raise SourceError(
                f"{file.filename} has groups in groups {_MAX_GROUPS} deep; name its dataset after a colon"
            )
        if _is_volume(node):
            names[node.ndim == 3].append(name)

    file.visititems(visit)
    return names[True] or names[False]


def _is_volume(node: Any) -> bool:
    return isinstance(node, h5py.Dataset) and 3 <= len(node.shape or ()) <= _MAX_AXES and 0 not in node.shape
