"""The table of formats in docs/formats.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.markdown import markdown_table
from tests.interop.files import TYPES, Check

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEADS = (
    "format",
    "read",
    "written",
    "types",
    "voxel size and place",
    "written by volseg, read by",
    "read by volseg, written by",
)


@dataclass(frozen=True)
class Format:
    """A row.

    Attributes:
        title: of the format.
        kinds: formats of files that belong to it.
        reader: name in the registry of readers.
        writer: name in the registry of writers; empty if it is not written.
    """

    title: str
    kinds: tuple[str, ...]
    reader: str
    writer: str = ""


FORMATS = (
    Format("OME-Zarr 0.5, read 0.4 too", ("ome-zarr",), "zarr", "ome-zarr"),
    Format("Zarr 2 and 3 arrays", ("zarr",), "zarr"),
    Format("Neuroglancer precomputed", ("precomputed",), "precomputed", "precomputed"),
    Format("N5", ("n5",), "n5", "n5"),
    Format("HDF5", ("hdf5",), "hdf5", "hdf5"),
    Format("TIFF of ImageJ", ("imagej",), "stack", "tiff"),
    Format("OME-TIFF", ("ome-tiff",), "stack", "tiff"),
    Format("Folder of sections", ("sections",), "stack"),
    Format("WEBKNOSSOS dataset", ("webknossos",), "webknossos", "webknossos"),
    Format("MRC", ("mrc",), "mrc"),
    Format("NRRD", ("nrrd",), "nrrd"),
    Format("NIfTI", ("nifti",), "nifti"),
)


def formats_table(by_others: Sequence[Check], by_volseg: Sequence[Check]) -> str:
    """A row for each format, then a line for what a program did not read, or read wrongly.

    Args:
        by_others: what other programs found in files of volseg.
        by_volseg: what volseg found in theirs.
    """
    rows = []
    for row in FORMATS:
        theirs = [check for check in by_others if check.file.format in row.kinds]
        ours = [check for check in by_volseg if check.file.format in row.kinds]
        sure = [check for check in (*theirs, *ours) if check.voxels and not check.is_wrong]
        rows.append(
            (
                row.title,
                f"`{row.reader}`",
                f"`{row.writer}`" if row.writer else "-",
                _types([check.file.dtype for check in (theirs or ours) if check in sure]),
                _kept(sure),
                _programs([(check.program, check.file.variant) for check in theirs if check in sure]),
                _programs([(check.file.program, check.file.variant) for check in ours if check in sure]),
            )
        )
    return "\n".join([markdown_table(HEADS, rows), "", *differences(by_others)]).rstrip()


def differences(checks: Iterable[Check]) -> list[str]:
    """A line for each program and variant of a format that it cannot read, or reads wrongly, in some types."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for check in checks:
        if check.error or check.fault:
            what = f"not read (`{check.error}`)" if check.error else check.fault
            lines.setdefault((check.program, _name(check), what), []).append(check.file.dtype)
    return [f"- {program}, {name}, {_types(types)}: {what}" for (program, name, what), types in lines.items()]


def _name(check: Check) -> str:
    title = next(row.title for row in FORMATS if check.file.format in row.kinds).partition(",")[0]
    return f"{title} ({check.file.variant})" if check.file.variant else title


def _types(found: Iterable[str]) -> str:
    types = [dtype for dtype in TYPES if dtype in set(found)]
    return "all types" if len(types) == len(TYPES) else ", ".join(types)


def _kept(sure: Sequence[Check]) -> str:
    size, start = any(check.size for check in sure), any(check.start for check in sure)
    return "both kept" if size and start else "size kept" if size else "none stated"


def _programs(found: Iterable[tuple[str, str]]) -> str:
    variants: dict[str, list[str]] = {}
    for program, variant in found:
        variants.setdefault(program, [])
        if variant and variant not in variants[program]:
            variants[program].append(variant)
    return "; ".join(f"{one} ({', '.join(names)})" if names else one for one, names in variants.items()) or "-"
