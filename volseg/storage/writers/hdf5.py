"""HDF5 is written: one dataset without chunks, with its voxel size as funlib and CREMI state it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from volseg.errors import TargetError
from volseg.storage.writers.base import Layout, LayoutRequest, refuse_option
from volseg.storage.writers.flat_file import FlatFileWriter

if TYPE_CHECKING:
    from pathlib import Path

    from volseg.storage.conversion_record import OutputEntry


class Hdf5Format:
    """HDF5 files."""

    extra = ""

    def layout(self, request: LayoutRequest) -> Layout:
        given = {"--chunk": request.chunk, "--shard": request.shard, "--no-shards": not request.sharded}
        refuse_option("hdf5", given)
        return Layout((1, *request.shape[1:]), None, request.place)

    def create(self, path: Path, output: OutputEntry, name: str, attributes: dict[str, Any]) -> None:
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)  # the same record gives the same bytes
        links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
        links.set_create_intermediate_group(True)
        kind = h5py.h5t.py_create(np.dtype(output.dtype), logical=True)
        try:
            with h5py.File(path, "w-") as file:
                space = h5py.h5s.create_simple(output.shape)
                h5py.h5d.create(file.id, output.dataset.encode(), kind, space, properties, links)
                dataset, place = file[output.dataset], output.place
                dataset.attrs["resolution"] = place.scale
                dataset.attrs["offset"] = place.translation
                dataset.attrs["units"] = ["nm"] * 3
                dataset.attrs["axis_names"] = ["z", "y", "x"]
        except OSError as error:
            raise TargetError(f"cannot create {path}: {error}; choose a writable folder") from error

    def open(self, path: Path, output: OutputEntry) -> FlatFileWriter:
        try:
            with h5py.File(path, "r", locking="best-effort") as file:
                offset = file[output.dataset].id.get_offset()
        except (OSError, KeyError) as error:
            raise TargetError(f"{path} cannot be read back: {error}; start again with --overwrite") from error
        return FlatFileWriter(path, offset, output.shape, np.dtype(output.dtype))

    def owns(self, path: Path) -> bool:
        return path.is_file() and h5py.is_hdf5(path)


FORMAT = Hdf5Format()
