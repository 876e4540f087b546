"""OME-Zarr 0.5 is written: sharded, or with a file for each chunk."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from volseg.blocks import level_factors
from volseg.storage.conversion_record import CONVERSION_KEY
from volseg.storage.create import create_volume
from volseg.storage.object_path import ObjectPath
from volseg.storage.object_target import open_target
from volseg.storage.paths import refuse_other_content
from volseg.storage.pyramid import pyramid_of
from volseg.storage.writers.base import LABEL_TYPES, Layout, LayoutRequest
from volseg.storage.writers.chunks import sharded_layout
from volseg.storage.zarr_array import open_array
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.blocks import Box
    from volseg.storage.conversion_record import OutputEntry
    from volseg.storage.marks import Written
    from volseg.storage.object_path import TargetPath
    from volseg.storage.target import Target


class OmeZarrWriter:
    """Writes whole shards of a target, and reads them back through zarrs."""

    def __init__(self, path: TargetPath, output: OutputEntry) -> None:
        is_labels = output.dtype in LABEL_TYPES
        self.pyramid = pyramid_of(
            output.pyramid, ("",), lambda _, level: replace(open_target(path, level), is_labels=is_labels)
        )
        self._target: Target = self.pyramid.finest[0]
        self._array = None if isinstance(path, ObjectPath) else open_array(str(path / "0"))

    def write(self, box: Box, voxels: NDArray[Any], check: Callable[[], object]) -> Written:
        return self._target.write(box, voxels, check)

    def read(self, box: Box) -> NDArray[Any]:
        if self._array is None:
            return self._target.read(box)
        voxels: NDArray[Any] = np.asarray(self._array[box.slices])
        return voxels

    def stored(self, box: Box) -> int:
        return stored_bytes(self._target.shard_files(box))

    def folders(self, box: Box) -> set[TargetPath]:
        return self._target.shard_folders(box)

    def close(self) -> None:
        for target in self.pyramid.targets:
            target.remove_partials()


class OmeZarrFormat:
    """OME-Zarr 0.5 groups."""

    extra = ""

    def layout(self, request: LayoutRequest) -> Layout:
        chunk, shard = sharded_layout(request, np.dtype(request.dtype).itemsize)
        place = request.place
        levels = level_factors(request.shape, shard or chunk, place.scale if place.is_nm else None, request.levels)
        return Layout(chunk, shard, place, levels=levels)

    def create(self, path: Path, output: OutputEntry, name: str, attributes: dict[str, Any]) -> None:
        create_volume(
            path,
            shape=output.shape,
            shard=output.shard,
            chunk=output.chunk,
            dtype=output.dtype,
            place=output.place,
            name=name,
            levels=output.pyramid.levels,
        )
        zarr.open_group(path, mode="r+").attrs[CONVERSION_KEY] = attributes

    def open(self, path: Path, output: OutputEntry) -> OmeZarrWriter:
        return OmeZarrWriter(path, output)

    def owns(self, path: Path) -> bool:
        refuse_other_content(path)
        return True


def stored_bytes(files: Sequence[TargetPath]) -> int:
    """Bytes of some files; 0 if one is missing."""
    try:
        return sum(file.stat().st_size for file in files)
    except (FileNotFoundError, NotADirectoryError):
        return 0


def recorded_conversion(path: TargetPath) -> dict[str, Any] | None:
    """The conversion record in the attributes of a complete OME-Zarr; None if there is none."""
    try:
        attributes = parse_object((path / "zarr.json").read_bytes())["attributes"][CONVERSION_KEY]
    except (OSError, KeyError, TypeError, ValueError):
        return None
    return attributes if isinstance(attributes, dict) else None


FORMAT = OmeZarrFormat()
