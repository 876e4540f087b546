"""Where a target may stand: on a disk that takes it, apart from what is read."""

from __future__ import annotations

import os
from pathlib import Path

from volseg.errors import TargetError


def refuse_overlap(what: str, location: str, target: Path) -> None:
    """Refuse to write into what is read, or over it.

    Args:
        what: is read, a word.
        location: of it, a path or a URL.
        target: where it is written to.

    Raises:
        TargetError: one lies in the other.
    """
    read, real = Path(location).resolve(), target.resolve()
    if "://" not in location and (read.is_relative_to(real) or real.is_relative_to(read)):
        raise TargetError(f"target {target} and {what} {location} lie in one another; choose a path outside the {what}")


def refuse_unwritable(target: Path) -> None:
    """Refuse a target that could not be made.

    Raises:
        TargetError: what it would stand in is a file, or read-only.
    """
    standing = next(folder for folder in target.parents if folder.exists())
    if not standing.is_dir():
        raise TargetError(f"target {target} cannot be written: {standing} is a file; choose another folder")
    if not os.access(standing, os.W_OK) or _read_only(standing):
        raise TargetError(f"target {target} cannot be written: {standing} is read-only for you; choose another folder")


def _read_only(folder: Path) -> bool:
    """Whether a folder is on a read-only mount, which file modes do not show (and root ignores modes)."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
