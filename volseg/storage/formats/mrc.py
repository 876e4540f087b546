"""MRC files (MRC2014), mapped into memory."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.extras import require
from volseg.storage.formats.flat_file import FlatFile, open_flat, shortest_decimal
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from volseg.storage.array_volume import ArrayVolume

SUFFIXES = (".mrc", ".mrcs", ".rec", ".map", ".st", ".ali", ".preali", ".ccp4")
_HEADER = 1024
_IMOD_STAMP, _IMOD_AT, _SIGNED = 1146047817, 152, 1
_VOLUME_STACKS = range(401, 631)
_AXES = {1: "x", 2: "y", 3: "z"}


def open_mrc(location: str, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS) -> ArrayVolume:
    """Open an MRC file; no voxel is read.

    The voxel size is the cell over its sampling, in angstrom; the translation is that of the first column, row and
    section (`nxstart`). The header's `origin` is left out: programs give it either sign.

    Raises:
        SourceError: it cannot be read, or mrcfile is not installed.
        ConfigError: options that do not fit it.
    """
    path = Path(location).absolute()
    return open_flat(path, _read_header(path), dtypes, options, open_mrc)


def _read_header(path: Path) -> FlatFile:
    mrcfile = require("mrcfile", "formats", str(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with mrcfile.open(path, header_only=True) as file:
                header, extended = file.header, int(file.header.nsymbt)
            dtype = np.dtype(mrcfile.utils.data_dtype_from_header(header))
        with path.open("rb") as raw:
            first = raw.read(_HEADER)
    except Exception as error:  # mrcfile raises errors of many kinds
        raise SourceError(f"{path} cannot be read as MRC: {error}; copy it again, or save it anew") from error
    if dtype.name == "int8" and _is_imod_unsigned(first, header.nx.dtype):
        dtype = np.dtype("uint8")
    counts = [int(n) for n in (header.nz, header.ny, header.nx)]
    names = [_AXES.get(int(axis), "") for axis in (header.maps, header.mapr, header.mapc)]
    if sorted(names) != ["x", "y", "z"]:
        names = ["z", "y", "x"]  # programs that write no axes mean these
    cell = dict(zip("xyz", (shortest_decimal(header.cella[axis]) for axis in "xyz"), strict=True))
    samples = dict(zip("xyz", (int(n) for n in (header.mx, header.my, header.mz)), strict=True))
    sizes = [cell[name] / samples[name] if samples[name] > 0 else 0.0 for name in names]
    first_voxel = [int(n) for n in (header.nzstart, header.nystart, header.nxstart)]
    starts = [n * size for n, size in zip(first_voxel, sizes, strict=True)]
    if int(header.ispg) in _VOLUME_STACKS and 0 < samples["z"] < counts[0]:
        counts, names = [counts[0] // samples["z"], samples["z"], *counts[1:]], ["c", *names]
        sizes, starts = [1.0, *sizes], [0.0, *starts]
    if min(counts) < 1 or extended < 0:
        raise SourceError(f"{path} states a shape of {counts} and {extended} bytes of header; copy it again")
    return FlatFile(
        path,
        _HEADER + extended,
        tuple(counts),
        dtype,
        tuple(names),
        sizes if min(sizes) > 0 else None,
        starts,
        ["angstrom"] * len(names),
    )


def _is_imod_unsigned(header: bytes, order: Any) -> bool:
    """Whether IMOD wrote bytes as 0 to 255, which it says in a flag."""
    mark = ">" if np.dtype(order).byteorder == ">" else "<"
    stamp, flags = struct.unpack_from(f"{mark}2i", header, _IMOD_AT)
    return bool(stamp == _IMOD_STAMP and not flags & _SIGNED)
