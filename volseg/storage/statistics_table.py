"""Frozen constants of a run, in files beside its journal: one row of mean and standard deviation a section."""

from __future__ import annotations

import os
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from volseg.errors import TargetError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.ops import Statistics


def table_of(statistics: Statistics) -> NDArray[np.float64]:
    """The constants as rows of mean and standard deviation, float64."""
    return np.asarray(statistics, "<f8").reshape(-1, 2)


def table_digest(table: NDArray[np.float64]) -> str:
    """Digest of the rows of a table."""
    return blake2b(np.ascontiguousarray(table, "<f8").tobytes(), digest_size=16).hexdigest()


def write_table(folder: Path, table: NDArray[np.float64]) -> None:
    """Write a table under its digest; the file appears whole, and is on the disk before this returns.

    Raises:
        TargetError: it cannot be written.
    """
    path = _path(folder, table_digest(table))
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.save(file, np.ascontiguousarray(table, "<f8"), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror or error}; free some space") from error


def read_table(folder: Path, digest: str) -> NDArray[np.float64]:
    """Read the table of a digest.

    Raises:
        TargetError: it is missing or damaged.
    """
    path = _path(folder, digest)
    try:
        # A map is refused if the file is shorter than its header says, before memory is taken for it.
        table: NDArray[np.float64] = np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # a damaged header raises errors of the parser of Python's literals
        raise TargetError(f"cannot read the normalisation constants in {path}: {error}; rerun with --resume") from error
    if table_digest(table) != digest:
        raise TargetError(f"the normalisation constants in {path} are damaged; delete the file and rerun with --resume")
    return table


def _path(folder: Path, digest: str) -> Path:
    return folder / f"statistics-{digest}.npy"
