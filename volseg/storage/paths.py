"""Checks that an output is local, writable, apart from its inputs, and replaces nothing but itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import TargetError
from volseg.storage.metadata_file import read_metadata
from volseg.storage.object_path import ObjectPath
from volseg.text import parse_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from volseg.storage.object_path import TargetPath

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")
_MAY_BE_IN_A_GROUP = re.compile(r"zarr\.json|\.zgroup|\.zattrs|\.zmetadata|\.DS_Store|\._.*|\.nfs.*")
"""Metadata, and files that systems make."""
_LISTED = 3

UNCERTAINTY = "uncertainty"
"""Name of the volume inside a target with the standard deviation of the estimates."""


def local_output(location: str | Path) -> Path:
    """Absolute path of an output, without symbolic links, as inputs are resolved too.

    Raises:
        TargetError: it is a URL, or no name that the file system takes.
    """
    # A Path of a URL has lost a slash.
    if _URL.match(str(location)):
        raise TargetError(
            f"target {location} is a URL; write to a local or mounted path and copy it from there (predict and "
            "convert write to s3://, gs:// and az://)"
        )
    path = Path(os.path.realpath(location))
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):  # the second is told better by who writes
        return path
    except OSError as error:
        raise TargetError(f"target {location} cannot be written: {error.strerror}; choose another path") from error
    return path


def local_input(location: str) -> Path | None:
    """Path of an input's file or folder; None behind a URL.

    >>> str(local_input("file:///data/cremi.h5:volumes/raw")), local_input("s3://bucket/raw.zarr")
    ('/data/cremi.h5', None)
    """
    _, marker, after = location.rpartition("file://")
    if not marker and "://" in location:
        return None
    path = Path(after)
    # A dataset inside a file is part of its location.
    exists = os.path.exists(path)  # noqa: PTH110 - that of pathlib raises errors
    return path if exists else Path(re.sub(r"(?<=\.)(h5|hdf5|hdf):.*", r"\1", after, flags=re.IGNORECASE))


def refuse_overlap(what: str, location: str, target: TargetPath) -> None:
    """Refuse a target that is inside an input, or contains it, by whichever links or mounts either is named.

    Args:
        what: name of the input, such as `source`.
        location: path or URL of the input.
        target: path of the target.

    Raises:
        TargetError: one is inside the other.
    """
    read = local_input(location)
    if isinstance(target, ObjectPath):
        source, output = location.rstrip("/") + "/", f"{target}/"
        if source.startswith(output) or output.startswith(source):
            raise TargetError(f"target {target} and {what} {location} overlap; choose a place outside the {what}")
        return
    if read is None:
        return
    inputs, outputs = _identities(read), _identities(target)
    if outputs and outputs[0] in inputs and target.exists():
        relation = "would replace" if outputs[0] == inputs[0] else "contains"
        raise TargetError(f"target {target} {relation} {what} {location}; choose a path outside the {what}")
    if read.is_dir() and inputs[0] in outputs:
        raise TargetError(f"target {target} is inside {what} {location}; choose a path outside the {what}")


def _identities(path: Path) -> list[tuple[int, int]]:
    """Device and inode of a path and of all folders above it, those that exist: equal under every mount."""
    resolved = Path(os.path.realpath(path))
    return [(s.st_dev, s.st_ino) for s in (p.stat() for p in (resolved, *resolved.parents) if p.exists())]


def refuse_overwritten_inputs(inputs: Iterable[tuple[str, str]], outputs: Iterable[Path]) -> None:
    """Refuse output files that are an input, or lie inside one, such as in a folder of sections.

    Args:
        inputs: name and location of each.
        outputs: files to be written.

    Raises:
        TargetError: names the first.
    """
    outputs = list(outputs)
    for what, location in inputs:
        for output in outputs:
            refuse_overlap(what, location, output)


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


def refuse_other_content(path: Path) -> None:
    """Refuse to replace a path that holds more than one Zarr volume: a file, a plain folder, a group of volumes.

    Raises:
        TargetError: names what would be lost.
    """
    if not path.exists():
        return
    if not _is_zarr(path):
        raise TargetError(f"{path} is not a Zarr, so --overwrite does not replace it; delete it or choose another path")
    others = _other_content(path)
    if others:
        names = ", ".join(others[:_LISTED]) + (f" and {len(others) - _LISTED} more" if len(others) > _LISTED else "")
        raise TargetError(
            f"{path} also holds {names}, so --overwrite does not replace it; move these away or choose another path"
        )


def _other_content(folder: Path, prefix: str = "") -> list[str]:
    """Entries of a group that are neither its metadata nor levels of its image, and Zarrs inside an array."""
    document = _read_json(folder / "zarr.json")
    is_array = (folder / ".zarray").is_file() or document.get("node_type") == "array"
    levels = set() if is_array else _own_children(folder, document)
    others: list[str] = []
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            name, path = entry.name, folder / entry.name
            if name in levels and entry.is_dir():
                others += _other_content(path, f"{prefix}{name}/")
            elif (entry.is_dir() and _is_zarr(path)) if is_array else not _MAY_BE_IN_A_GROUP.fullmatch(name):
                others.append(prefix + name)
    return others


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("zarr.json", ".zgroup", ".zarray"))


def _own_children(folder: Path, document: Mapping[str, Any]) -> set[str]:
    """Names of the levels of an OME-Zarr image, and of what else volseg writes into its targets."""
    attributes = document.get("attributes") or _read_json(folder / ".zattrs")
    try:
        scales = (attributes.get("ome") or attributes).get("multiscales") or []
        levels = {str(dataset["path"]).partition("/")[0] for scale in scales for dataset in scale["datasets"]}
    except (AttributeError, KeyError, TypeError):  # metadata of no known form: all entries count as others
        return set()
    return levels | ({UNCERTAINTY} if "volseg" in attributes else set())


def _read_json(path: Path) -> Mapping[str, Any]:
    """A JSON object; empty if there is none."""
    try:
        return parse_object(read_metadata(path))
    except (OSError, ValueError):
        return {}
