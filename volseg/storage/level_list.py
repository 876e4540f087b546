"""The levels that an OME-Zarr group lists: new ones are listed by one rename, and those that they replace deleted."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

from volseg.storage.durable import sync_folder, sync_tree, write_synced
from volseg.storage.level_group import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from volseg.storage.level_group import LevelGroup

_GROUP_FILES = {"zarr.json", ".zgroup", ".zattrs"}


def list_levels(
    group: LevelGroup, names: Sequence[str], scales: Sequence[Sequence[int]], method: str, staging: Path
) -> None:
    """Make the finest level and new ones those that the group lists, by one rename of its metadata; again is harmless.

    All else is kept. Consolidated metadata of the group are brought up to date.

    Args:
        group: of the levels, whose metadata are read again.
        names: of the new levels, complete and on the disk.
        scales: voxels (z, y, x) of the finest level that a voxel of each is made of.
        method: of downsampling, for the metadata.
        staging: folder for half-written files, on the same file system.

    Raises:
        OSError: they cannot be written.
    """
    for name in names:
        sync_tree(group.path / name)
    sync_folder(group.path)
    file = group.path / (".zattrs" if group.is_v2 else "zarr.json")
    document = read_document(file)
    attributes = document if group.is_v2 else document["attributes"]
    multiscale = attributes.get("ome", attributes)["multiscales"][0]
    old = [str(dataset["path"]) for dataset in multiscale["datasets"][1:]]
    new = [
        {"path": name, "coordinateTransformations": group.transformations(scale)}
        for name, scale in zip(names, scales, strict=True)
    ]
    multiscale["datasets"] = [multiscale["datasets"][0], *new]
    if old and old != list(names):
        multiscale.pop("metadata", None)  # of how the levels were made that these replace
    multiscale["type"] = method
    gone = [path for path in old if path not in names]
    if not group.is_v2:
        consolidated = document.get("consolidated_metadata")
        if isinstance(consolidated, dict) and isinstance(consolidated.get("metadata"), dict):
            _consolidate(consolidated["metadata"], group, names, gone)
        _replace(file, document, staging)
        return
    _replace(file, document, staging)
    file = group.path / ".zmetadata"
    if file.is_file():
        joined = read_document(file)
        _consolidate(joined["metadata"], group, names, gone)
        _replace(file, joined | {"metadata": joined["metadata"] | {".zattrs": document}}, staging)


def _consolidate(metadata: dict[str, Any], group: LevelGroup, names: Sequence[str], gone: Sequence[str]) -> None:
    """Put the metadata of new levels, and of groups above them, among the consolidated ones; take old levels out."""
    for key in [key for key in metadata if any(f"{key}/".startswith(f"{path}/") for path in gone)]:
        del metadata[key]
    for name in names:
        parts = name.split("/")
        for path in ("/".join(parts[: depth + 1]) for depth in range(len(parts))):
            for file in ("zarr.json",) if not group.is_v2 else (".zgroup", ".zarray", ".zattrs"):
                if (group.path / path / file).is_file():
                    metadata[f"{path}/{file}" if group.is_v2 else path] = read_document(group.path / path / file)


def remove_level(group: LevelGroup, name: str) -> None:
    """Delete a level, and the groups above it in the image that hold nothing else."""
    folder = group.path / name
    shutil.rmtree(folder, ignore_errors=True)
    for parent in folder.parents:
        if parent == group.path or not parent.is_dir() or {entry.name for entry in parent.iterdir()} - _GROUP_FILES:
            return
        shutil.rmtree(parent, ignore_errors=True)


def _replace(file: Path, document: Mapping[str, Any], staging: Path) -> None:
    """Replace a file of metadata by one rename, if it is to change."""
    if file.is_file() and read_document(file) == document:
        return
    partial = staging / f"{file.name}.partial"
    partial.unlink(missing_ok=True)
    write_synced(partial, json.dumps(document, indent=2).encode())
    partial.replace(file)
    sync_folder(file.parent)
