"""Frozen constants of a run, in files beside its journal: one row of mean and standard deviation a section."""

from __future__ import annotations

from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from volseg.errors import TargetError
from volseg.storage.durable import write_whole
from volseg.storage.object_path import ObjectPath

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.ops import Statistics
    from volseg.storage.object_path import TargetPath


def table_of(statistics: Statistics) -> NDArray[np.float64]:
    """The constants as rows of mean and standard deviation, float64."""
    return np.asarray(statistics, "<f8").reshape(-1, 2)


def table_digest(table: NDArray[np.float64]) -> str:
    """Digest of the rows of a table."""
    return blake2b(np.ascontiguousarray(table, "<f8").tobytes(), digest_size=16).hexdigest()


def write_table(folder: TargetPath, table: NDArray[np.float64]) -> None:
    """Write a table under its digest; the file appears whole, and is on the disk before this returns.

    Raises:
        TargetError: it cannot be written.
    """
    path = _path(folder, table_digest(table))
    content = BytesIO()
    np.save(content, np.ascontiguousarray(table, "<f8"), allow_pickle=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, content.getvalue())
    except TargetError:
        raise
    except OSError as error:
        raise TargetError(f"cannot write {path}: {error.strerror or error}; free some space") from error


def read_table(folder: TargetPath, digest: str) -> NDArray[np.float64]:
    """Read the table of a digest.

    Raises:
        TargetError: it is missing or damaged.
    """
    path = _path(folder, digest)
    try:
        # A map is refused if the file is shorter than its header says, before memory is taken for it.
        table: NDArray[np.float64] = (
            np.load(BytesIO(path.read_bytes()), allow_pickle=False)
            if isinstance(path, ObjectPath)
            else np.array(np.load(path, mmap_mode="r", allow_pickle=False))
        )
    except Exception as error:  # a damaged header raises errors of the parser of Python's literals
        raise TargetError(f"cannot read the normalisation constants in {path}: {error}; rerun with --resume") from error
    if table_digest(table) != digest:
        raise TargetError(f"the normalisation constants in {path} are damaged; delete the file and rerun with --resume")
    return table


def _path(folder: TargetPath, digest: str) -> TargetPath:
    return folder / f"statistics-{digest}.npy"
