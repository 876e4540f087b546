"""The volume that a conversion writes: type, sizes and blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from volseg.conversion.plan import block_shape
from volseg.conversion.source import SectionSource
from volseg.errors import ConfigError
from volseg.ops import Rescale
from volseg.storage import read_bytes_per_voxel, stored_volume
from volseg.storage.conversion_record import OutputEntry
from volseg.storage.writers import FORMATS
from volseg.storage.writers.base import LayoutRequest

if TYPE_CHECKING:
    from volseg.blocks import Zyx
    from volseg.config import ConvertConfig
    from volseg.storage import Place, Readable, TargetPath

_DATASET = "volumes/raw"
"""Of an HDF5 file, if none is named."""


def output_entry(
    config: ConvertConfig,
    volume: Readable,
    part: tuple[Place, Zyx],
    where: tuple[str, str, TargetPath],
    before: OutputEntry | None,
) -> tuple[OutputEntry, tuple[str, ...]]:
    """Choose the volume to write, and say what is assumed; a resumed conversion keeps what is not requested.

    Args:
        config: the options.
        volume: what is read, at its voxel size in the output.
        part: place and shape of the part that is written.
        where: format, dataset and path.
        before: the output of the conversion to resume.

    Raises:
        ConfigError: options that do not apply to the format.
    """
    (place, shape), (name, dataset, target) = part, where
    dtype = config.dtype or (before.dtype if before else volume.dtype)
    limits = config.range
    if limits is None and before is not None and before.dtype == dtype:
        limits = before.limits
    rescale = Rescale.between(volume.dtype, dtype, limits)
    is_chunked = before is not None and name in ("hdf5", "tiff")
    kept = None if before is None or is_chunked else before
    request = LayoutRequest(
        shape=shape,
        dtype=dtype,
        place=place,
        chunk=config.chunk or (kept.chunk if kept else None),
        shard=config.shard or (kept.shard if kept and not config.no_shards else None),
        levels=config.levels if config.levels is not None or kept is None else len(kept.levels),
        sharded=not (config.no_shards or (kept is not None and kept.shard is None and config.shard is None)),
        target=target,
    )
    layout = FORMATS[name].layout(request)
    if config.levels and name != "ome-zarr":
        raise ConfigError(f"--levels {config.levels} does not apply to --format {name}; leave it out")
    by_sections = isinstance(stored_volume(volume), SectionSource)
    item = max(np.dtype(dtype).itemsize, read_bytes_per_voxel(volume))
    end = tuple(n + o for n, o in zip(shape, layout.origin, strict=True))
    entry = OutputEntry(
        format=name,
        dataset=dataset or (before.dataset if before else "") or (_DATASET if name == "hdf5" else ""),
        shape=shape,
        dtype=dtype,
        limits=rescale.limits,
        shard=layout.shard,
        chunk=layout.chunk,
        levels=layout.levels,
        block=block_shape(layout.unit, (end[0], end[1], end[2]), volume.chunk, item, sections=by_sections),
        origin=layout.origin,
        scale=layout.place.scale,
        translation=layout.place.translation,
        is_nm=layout.place.is_nm,
    )
    scaled = (str(rescale),) if volume.dtype != dtype else ()
    return entry, (*scaled, *layout.notes)
