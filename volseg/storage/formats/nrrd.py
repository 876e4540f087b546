"""NRRD files, with their voxels in them or in one file beside them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import SourceError
from volseg.storage.axes import DEFAULT_OPTIONS, ReadOptions
from volseg.storage.extras import require
from volseg.storage.formats.flat_file import FlatFile, axis_aligned, open_flat
from volseg.storage.zarr_volume import GREY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from volseg.storage.array_volume import ArrayVolume

SUFFIXES = (".nrrd", ".nhdr")
_MAX_HEADER = 1 << 20
_END = re.compile(rb"\r?\n\r?\n")
_TYPES = {
    "int8": "signed char, int8, int8_t", "uint8": "uchar, unsigned char, uint8, uint8_t",
    "int16": "short, short int, signed short, signed short int, int16, int16_t",
    "uint16": "ushort, unsigned short, unsigned short int, uint16, uint16_t",
    "int32": "int, signed int, int32, int32_t", "uint32": "uint, unsigned int, uint32, uint32_t",
    "int64": "longlong, long long, long long int, signed long long, signed long long int, int64, int64_t",
    "uint64": "ulonglong, unsigned long long, unsigned long long int, uint64, uint64_t",
    "float32": "float", "float64": "double",
}  # fmt: skip
_DTYPES = {name: dtype for dtype, names in _TYPES.items() for name in names.split(", ")}
_ENCODINGS: Any = {"raw": "", "gzip": "gzip", "gz": "gzip", "bzip2": "bzip2", "bz2": "bzip2"}
_SPATIAL = ("domain", "space", "???", "none")
_AXES = ("x", "y", "z")


def open_nrrd(location: str, dtypes: tuple[str, ...] = GREY, options: ReadOptions = DEFAULT_OPTIONS) -> ArrayVolume:
    """Open a NRRD file; no voxel is read. Its first axis, the fastest, is x.

    Raises:
        SourceError: it cannot be read, its voxels lie in a file of another folder, or pynrrd is not installed.
        ConfigError: options that do not fit it.
    """
    path = Path(location).absolute()
    nrrd = require("nrrd", "formats", str(path))
    with path.open("rb") as file:
        first = file.read(_MAX_HEADER)
    end = _END.search(first)
    text = first if end is None else first[: end.end()]
    try:
        header = nrrd.read_header(text.decode("latin-1").splitlines())
        flat = _flat_file(path, header, len(text))
    except SourceError:
        raise
    except Exception as error:  # pynrrd raises errors of many kinds
        raise SourceError(f"{path} cannot be read as NRRD: {error}; copy it again, or save it anew") from error
    return open_flat(path, flat, dtypes, options, open_nrrd)


def _flat_file(path: Path, header: Mapping[str, Any], end: int) -> FlatFile:
    sizes = [int(n) for n in header["sizes"]]
    type_name, encoding = str(header["type"]), str(header["encoding"]).lower()
    if type_name not in _DTYPES or encoding not in _ENCODINGS:
        raise SourceError(f"{path} holds {type_name} in {encoding} encoding; save it as raw or gzip")
    if len(sizes) < 3 or min(sizes) < 1:
        raise SourceError(f"{path} has sizes {sizes}, which is no volume of axes x, y, z")
    dtype = np.dtype(_DTYPES[type_name]).newbyteorder(">" if header.get("endian") == "big" else "<")
    voxels, start = _voxels(path, header, end)
    names = _names(path, header, len(sizes))
    spacings, starts, units, note = _place(header, names)
    skip = int(header.get("byte skip", header.get("byteskip", 0)))
    flat = FlatFile(
        voxels,
        start,
        tuple(reversed(sizes)),
        dtype,
        tuple(reversed(names)),
        spacings,
        starts,
        units,
        _ENCODINGS[encoding],
        note=note,
        header=None if voxels == path else path,
    )
    return _skipped(flat, header, skip)


def _skipped(flat: FlatFile, header: Mapping[str, Any], skip: int) -> FlatFile:
    """Account for the bytes that the header says to skip; -1 means all but the voxels."""
    if int(header.get("line skip", header.get("lineskip", 0))):
        raise SourceError(f"{flat.path} says to skip lines, which volseg does not; save it anew")
    if skip == -1 and not flat.compression:
        return replace(flat, start=flat.path.stat().st_size - flat.bytes)
    if skip < 0:
        raise SourceError(f"{flat.path} says to skip {skip} bytes; save it anew")
    return replace(flat, skip=skip) if flat.compression else replace(flat, start=flat.start + skip)


def _voxels(path: Path, header: Mapping[str, Any], end: int) -> tuple[Path, int]:
    """The file of the voxels, and where they begin."""
    name = header.get("data file", header.get("datafile"))
    if name is None:
        return path, end
    if isinstance(name, list) or Path(name).name != name or "%" in name or name.upper().startswith("LIST"):
        raise SourceError(f"{path} names voxels in {name}, not in one file beside it; save it as one .nrrd file")
    if not (path.parent / name).is_file():
        raise SourceError(f"{path} names voxels in {name}, which does not exist; copy that file too")
    return path.parent / name, 0


def _names(path: Path, header: Mapping[str, Any], count: int) -> list[str]:
    """Names of the axes in stored order: x, y and z are the spatial ones."""
    kinds = [str(kind).lower() for kind in header.get("kinds", [])]
    spatial = [i for i, kind in enumerate(kinds) if kind in _SPATIAL]
    if len(kinds) != count or len(spatial) != 3:
        if count != 3:
            raise SourceError(f"{path} has {count} axes, of which its kinds do not make three spatial; save it anew")
        spatial = [0, 1, 2]
    return [_AXES[spatial.index(i)] if i in spatial else "c" for i in range(count)]


def _place(header: Mapping[str, Any], names: list[str]) -> tuple[list[float] | None, list[float], list[object], str]:
    """Sizes, starts and units of the spatial axes (z, y, x), and what is assumed."""
    spatial = [i for i, name in enumerate(names) if name != "c"]
    units = list(header.get("space units") or header.get("units") or [None] * 3)
    units = units if len(units) == 3 else [units[i] for i in spatial]
    directions = header.get("space directions")
    if directions is not None:
        rows = np.asarray([directions[i] for i in spatial], float)
        origin = header.get("space origin")
        if rows.shape != (3, 3) or not np.isfinite(rows).all():
            return None, [], [], "its space directions are no three steps in space, so they are not used"
        sizes, starts, note = axis_aligned(rows, [0.0] * 3 if origin is None else origin, "space directions")
        return sizes[::-1], starts[::-1], units[::-1], note
    if header.get("spacings") is None:
        return None, [], [], ""
    spacings = [float(header["spacings"][i]) for i in spatial]
    lows = header.get("axis mins", header.get("axismins"))
    starts = [0.0] * 3 if lows is None else [float(lows[i]) for i in spatial]
    starts = [start if np.isfinite(start) else 0.0 for start in starts]
    return (spacings[::-1], starts[::-1], units[::-1], "") if np.isfinite(spacings).all() else (None, [], [], "")
