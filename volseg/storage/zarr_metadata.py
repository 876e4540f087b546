"""What the metadata of a local Zarr says, whatever its voxels: labels are shown, though volseg computes on none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from volseg.errors import SourceError
from volseg.storage import ome_zarr
from volseg.storage.target import UNCERTAINTY
from volseg.storage.zarr_volume import channel_labels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from volseg.blocks import Zyx, ZyxFloat

Format: TypeAlias = Literal["zarr2", "zarr3"]
_CHANNEL_AXES = ("c", "channel")
_WAY_OUT = "name a Zarr array or an OME-Zarr group, or make one with: volseg convert"


@dataclass(frozen=True, slots=True)
class Node:
    """An array or a group, as its own files describe it.

    Attributes:
        format: the Zarr version.
        attributes: what users and tools wrote beside it.
        shape: voxels along every axis; None for a group.
        dtype: such as `uint8`; None for a group.
        axes: the names of its axes, as Neuroglancer completes them.
    """

    format: Format
    attributes: Mapping[str, Any]
    shape: tuple[int, ...] | None
    dtype: str | None
    axes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What the viewer has to know of a local volume.

    Attributes:
        folder: what to serve: an OME-Zarr group with all its levels, or one array.
        array: the folder of the finest level.
        format: the Zarr version.
        axes: the names by which Neuroglancer knows its axes; those before z have length 1, but for one of channels.
        shape: voxels along z, y, x.
        dtype: the type of a voxel, such as `uint8`.
        voxel_nm: the voxel size in nanometres; None where nothing states it.
        coarsest: how many voxels of level 0 one of the coarsest level spans, along x.
        is_image: whether Neuroglancer can take axes and levels from the OME-Zarr metadata.
        moved: whether the metadata moves the volume away from the origin.
        by_volseg: whether a run of volseg wrote it: then it is a map of probabilities.
        channels: the names of its channels; none where there is one volume.
        channel_axis: where among the axes they lie; None where there is one volume.
        uncertainty: the volume inside a map of volseg that tells how far its estimates lie apart; None without one.
        is_uncertainty: whether it is that volume of some map.
    """

    folder: Path
    array: Path
    format: Format
    axes: tuple[str, ...]
    shape: Zyx
    dtype: str
    voxel_nm: ZyxFloat | None
    coarsest: float
    is_image: bool
    moved: bool
    by_volseg: bool
    channels: tuple[str, ...] = ()
    channel_axis: int | None = None
    uncertainty: Path | None = None
    is_uncertainty: bool = False


def read_node(folder: Path) -> Node | None:
    """Read the metadata of a Zarr 2 or 3 array or group; None where there is none.

    Raises:
        SourceError: the metadata cannot be read.
    """
    try:
        if (folder / "zarr.json").is_file():
            return _node_of_zarr3(_json(folder / "zarr.json"))
        for name in (".zarray", ".zgroup"):
            if (folder / name).is_file():
                attributes = _json(folder / ".zattrs") if (folder / ".zattrs").is_file() else {}
                return _node_of_zarr2(_json(folder / name), attributes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SourceError(f"cannot read the metadata of {folder}: {type(error).__name__}: {error}") from error
    return None


def read_facts(folder: Path) -> Facts:
    """Read what the viewer has to know of the volume in a folder.

    Args:
        folder: a Zarr array, or an OME-Zarr group.

    Raises:
        SourceError: nothing there, not a Zarr, or not a volume with last axes (z, y, x).
    """
    if not folder.exists():
        raise SourceError(f"source {folder} does not exist; check the path, or the mount")
    node = read_node(folder)
    if node is None:
        raise SourceError(f"{folder} is not a Zarr; {_WAY_OUT}")
    if node.shape is None:
        return _facts_of_group(folder, node)
    group = read_node(folder.parent)
    multiscale = None if group is None else ome_zarr.multiscale_of(group.attributes)
    if group is None or multiscale is None or folder.name not in ome_zarr.level_paths(multiscale):
        return _facts(folder, folder, node, node)
    return _facts(folder, folder, node, group, multiscale)


def _facts_of_group(folder: Path, group: Node) -> Facts:
    multiscale = ome_zarr.multiscale_of(group.attributes)
    if multiscale is None:
        raise SourceError(f"{folder} is a Zarr group without OME-Zarr levels; name one of its arrays")
    names = ome_zarr.axis_names(multiscale)
    if names and names[-3:] != ["z", "y", "x"]:
        raise SourceError(f"{folder} has axes {', '.join(names)}; volseg shows volumes whose last axes are z, y, x")
    array = folder / ome_zarr.level_paths(multiscale)[0]
    node = read_node(array)
    if node is None or node.shape is None:
        raise SourceError(f"{array} is not an array, though the group's metadata names it as a level")
    whole = _neuroglancer_reads(group, multiscale)
    return _facts(folder if whole else array, array, node, group, multiscale)


def _facts(folder: Path, array: Path, node: Node, owner: Node, multiscale: Mapping[str, Any] | None = None) -> Facts:
    shape = node.shape or ()
    several = [place for place, n in enumerate(shape[:-3]) if n != 1]
    if len(shape) < 3 or 0 in shape or (several and several != _channel_axes(node, multiscale)):
        raise SourceError(
            f"{array} has shape {shape}, which is not one volume of axes (z, y, x), nor channels of one; "
            "store one volume by itself, or call the axis of its channels c"
        )
    voxel_nm = ome_zarr.plain_voxel_nm(node.attributes)
    if multiscale is not None:
        voxel_nm = ome_zarr.level_voxel_nm(multiscale, array.name) or voxel_nm
    is_image = multiscale is not None and folder != array
    beside = array.parent / UNCERTAINTY
    return Facts(
        folder=folder,
        array=array,
        format=node.format,
        axes=_image_axes(multiscale) if is_image and multiscale is not None else node.axes,
        shape=(shape[-3], shape[-2], shape[-1]),
        dtype=node.dtype or "",
        voxel_nm=voxel_nm,
        coarsest=_coarsest(multiscale) if is_image and multiscale is not None else 1.0,
        is_image=is_image,
        moved=is_image and '"translation"' in json.dumps(multiscale),
        by_volseg="volseg" in owner.attributes,
        channels=_channels(owner, shape[several[0]]) if several else (),
        channel_axis=several[0] if several else None,
        uncertainty=beside if "volseg" in owner.attributes and beside.is_dir() else None,
        is_uncertainty=array.parent.name == UNCERTAINTY and _is_map(array.parent.parent),
    )


def _channel_axes(node: Node, multiscale: Mapping[str, Any] | None) -> list[int]:
    stated = [] if multiscale is None else multiscale.get("axes", [])
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in stated or node.axes]
    return [
        place for place, axis in enumerate(axes[:-3]) if axis.get("type") == "channel" or axis["name"] in _CHANNEL_AXES
    ]


def _channels(owner: Node, count: int) -> tuple[str, ...]:
    labels = channel_labels(owner.attributes)
    return labels if len(labels) == count else tuple(map(str, range(count)))


def _is_map(folder: Path) -> bool:
    group = read_node(folder)
    return group is not None and "volseg" in group.attributes


def _coarsest(multiscale: Mapping[str, Any]) -> float:
    paths = ome_zarr.level_paths(multiscale)
    finest, coarsest = (ome_zarr.level_voxel_nm(multiscale, path) for path in (paths[0], paths[-1]))
    return 1.0 if finest is None or coarsest is None else coarsest[2] / finest[2]


def _image_axes(multiscale: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(axis["name"] + ("'" if axis.get("type") == "channel" else "") for axis in multiscale["axes"])


def _named(stated: Sequence[str | None] | None, count: int, prefix: str) -> tuple[str, ...]:
    names = stated or (None,) * count
    return tuple(f"{prefix}{place}" if name is None else name for place, name in enumerate(names))


def _neuroglancer_reads(group: Node, multiscale: Mapping[str, Any]) -> bool:
    """Whether the client takes this metadata: it raises on other versions, and on units such as `nm`."""
    axes = multiscale.get("axes", [])
    if not all(isinstance(axis, dict) for axis in axes):
        return False
    units = [str(axis.get("unit", "meter")) for axis in axes]
    stated = group.attributes.get("ome", multiscale)
    versions = {"zarr3": ("0.5", "0.4"), "zarr2": ("0.4",)}[group.format]
    return stated.get("version") in versions and all(u.endswith(("meter", "second")) or u == "angstrom" for u in units)


def _node_of_zarr3(stated: Mapping[str, Any]) -> Node:
    attributes = stated.get("attributes", {})
    if stated["node_type"] == "group":
        return Node("zarr3", attributes, None, None)
    shape, dtype = tuple(stated["shape"]), stated["data_type"]
    name = dtype if isinstance(dtype, str) else str(dtype["name"])
    return Node("zarr3", attributes, shape, name, _named(stated.get("dimension_names"), len(shape), "dim_"))


def _node_of_zarr2(stated: Mapping[str, Any], attributes: Mapping[str, Any]) -> Node:
    if "shape" not in stated:
        return Node("zarr2", attributes, None, None)
    shape, dtype = tuple(stated["shape"]), np.dtype(stated["dtype"]).name
    return Node("zarr2", attributes, shape, dtype, _named(attributes.get("_ARRAY_DIMENSIONS"), len(shape), "d"))


def _json(path: Path) -> Mapping[str, Any]:
    stated: Mapping[str, Any] = json.loads(path.read_text())
    return stated
