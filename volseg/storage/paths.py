"""Checks that a target path is writable and apart from its inputs."""

from __future__ import annotations

import os
from pathlib import Path

from volseg.errors import TargetError


def refuse_overlap(what: str, location: str, target: Path) -> None:
    """Refuse a target that is inside an input, or contains it.

    Args:
        what: name of the input, such as `source`.
        location: path or URL of the input.
        target: path of the target.

    Raises:
        TargetError: one is inside the other.
    """
    if "://" in location:
        return
    read, written = Path(location).resolve(), target.resolve()
    if read.is_relative_to(written):
        relation = "would replace" if read == written else "contains"
        raise TargetError(f"target {target} {relation} {what} {location}; choose a path outside the {what}")
    if written.is_relative_to(read):
        raise TargetError(f"target {target} is inside {what} {location}; choose a path outside the {what}")


def refuse_unwritable(target: Path) -> None:
    """Refuse a target that cannot be created.

    Raises:
        TargetError: its folder is a file, or read-only.
    """
    parent = next(folder for folder in target.parents if folder.exists())
    if not parent.is_dir():
        raise TargetError(f"target {target} cannot be written: {parent} is a file; choose another folder")
    if not os.access(parent, os.W_OK) or _read_only(parent):
        raise TargetError(f"target {target} cannot be written: {parent} is read-only; choose another folder")


def _read_only(folder: Path) -> bool:
    """Whether a folder is on a read-only mount, which file modes do not show (and root ignores modes)."""
    return hasattr(os, "statvfs") and bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
