"""Links and voxels of an HDF5 file that lie in other files; whoever wrote it would choose what is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h5py

from volseg.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

_MAX_LINKS = 64
"""Soft links, or virtual datasets over virtual datasets, that are followed."""
_REMEDY = "copy the voxels into the file, such as with h5repack or h5py"


def node_within(file: h5py.File, name: str, path: Path) -> Any:
    """Return a group or a dataset by its name, through soft links; None if there is none.

    Args:
        file: the file.
        name: of the node, from the root.
        path: of the file, for messages.

    Raises:
        SourceError: a link leads to another file.
    """
    node: Any = file
    parts, followed = _parts(name), 0
    while parts:
        part = parts.pop(0)
        link = node.get(part, getlink=True) if isinstance(node, h5py.Group) else None
        if isinstance(link, h5py.ExternalLink):
            raise SourceError(f"{path}:{name} is a link into {link.filename}, which volseg does not follow; {_REMEDY}")
        if isinstance(link, h5py.SoftLink):
            followed += 1
            if followed > _MAX_LINKS:
                raise SourceError(f"{path}:{name} is a circle of links; name the dataset itself")
            parts = _parts(link.path) + parts
            node = file if link.path.startswith("/") else node
        else:
            node = None if link is None else node[part]
    return node


def refuse_other_files(dataset: h5py.Dataset, path: Path) -> None:
    """Refuse a dataset whose voxels lie in other files, itself or below a virtual dataset.

    Args:
        dataset: of the file.
        path: of the file, for messages.

    Raises:
        SourceError: names the other file.
    """
    _check(dataset, path, above=(), checked=set())


def _check(dataset: h5py.Dataset, path: Path, above: tuple[str, ...], checked: set[str]) -> None:
    name = dataset.name
    if dataset.external:
        raise SourceError(
            f"{path}:{name} holds its voxels in {dataset.external[0][0]}, which volseg does not read; {_REMEDY}"
        )
    if name in above or len(above) > _MAX_LINKS:  # HDF5 would call itself without end
        raise SourceError(f"{path}:{name} is a circle of virtual datasets; {_REMEDY}")
    if not dataset.is_virtual or name in checked:
        return
    checked.add(name)
    for file_name, source_name in sorted({(one.file_name, one.dset_name) for one in dataset.virtual_sources()}):
        if file_name != ".":
            raise SourceError(
                f"{path}:{name} is a virtual dataset over {file_name}, which volseg does not read; {_REMEDY}"
            )
        source = None if "%" in source_name else node_within(dataset.file, source_name, path)
        if not isinstance(source, h5py.Dataset):
            raise SourceError(f"{path}:{name} is a virtual dataset over {source_name}, which it lacks; {_REMEDY}")
        _check(source, path, (*above, name), checked)


def _parts(name: str) -> list[str]:
    return [part for part in name.split("/") if part not in ("", ".")]
