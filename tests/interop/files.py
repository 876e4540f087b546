"""Volumes of one test pattern in all types, and the lists of them that the two environments exchange.

Needs numpy only: the programs of others have an environment of their own.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE, SIZE, START = (13, 50, 45), (50.0, 4.0, 6.0), (150.0, 40.0, 12.0)
"""Voxels; voxel size and place of the first voxel in nanometres; along z, y, x."""
FIRST = (3, 10, 2)
"""The first voxel (z, y, x), where a format counts places in voxels."""
TYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "float32", "bool")


@dataclass(frozen=True)
class File:
    """A volume of the pattern.

    Attributes:
        format: as in `KINDS` of the table.
        path: of the file or folder.
        dtype: of the pattern.
        program: what wrote it.
        variant: of the format, such as `sharded`; empty if there is one only.
        size: whether it states the voxel size.
        start: whether it states the place.
    """

    format: str
    path: str
    dtype: str
    program: str
    variant: str = ""
    size: bool = True
    start: bool = True


@dataclass(frozen=True)
class Check:
    """What a program found in a volume.

    Attributes:
        file: the volume.
        program: what read it.
        voxels: whether they are equal.
        size: whether the voxel size is that of the pattern; None if the program or the file states none.
        start: whether the place is; None likewise.
        error: why it was not read; empty if it was.
        fault: of the program, which explains a difference; empty if there is none.
    """

    file: File
    program: str
    voxels: bool = False
    size: bool | None = None
    start: bool | None = None
    error: str = ""
    fault: str = ""

    @property
    def is_wrong(self) -> bool:
        """Whether it was read as something else, and that is no known fault of the program."""
        differs = not self.voxels or self.size is False or self.start is False
        return differs and not self.error and not self.fault


def pattern(dtype: str) -> NDArray[Any]:
    """Voxels (z, y, x) that no mirroring or change of axes leaves the same; large and negative ones where there are."""
    z, y, x = np.indices(SHAPE)
    values = (z * 41 + y * 7 + x * 3 + (y > 20) * 50) % 256
    signed, wide = np.dtype(dtype).kind == "i", np.dtype(dtype).itemsize == 8
    if dtype == "bool":
        return np.asarray(values > 128)
    if dtype == "float32":
        return np.asarray(values / 3, dtype)
    labels = np.where(values > 200, values + 2**40 * wide + 2**15 * (dtype in ("uint16", "uint32")), values)
    return np.asarray(labels - 100 * signed, dtype)


def check(file: File, program: str, voxels: Any, size: Sequence[Any] | None, start: Sequence[Any] | None) -> Check:
    """Compare what a program read (z, y, x) with the pattern; sizes in nanometres, None if it states none."""
    same = np.array_equal(np.asarray(voxels), pattern(file.dtype))
    near = [None if one is None else _near(one, right) for one, right in ((size, SIZE), (start, START))]
    return Check(file, program, same, *near)


def _near(values: Sequence[Any], right: Sequence[float]) -> bool:
    return bool(np.allclose([float(value) for value in values], right, rtol=1e-5))  # some headers hold float32


def save(path: Path, rows: Sequence[File | Check]) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1))


def load_files(path: Path) -> list[File]:
    return [File(**row) for row in json.loads(path.read_text())]


def load_checks(path: Path) -> list[Check]:
    return [Check(**row | {"file": File(**row["file"])}) for row in json.loads(path.read_text())]
