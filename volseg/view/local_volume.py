"""Volumes that this process serves, on a disk or in an object store, as Neuroglancer reads them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box, to_zyx
from volseg.errors import SourceError
from volseg.ops.contrast import grey_range
from volseg.storage import GREY, LABELS, UNCERTAINTY, open_readable, open_volume, place_of, target_path
from volseg.storage.axes import AxisLayout
from volseg.storage.zarr_metadata import read_metadata
from volseg.storage.zarr_node import read_node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.storage import Place, Readable, TargetPath
    from volseg.storage.zarr_metadata import VolumeMetadata
    from volseg.storage.zarr_node import Format, ZarrNode

_CONTRAST_WINDOW = (1, 1024, 1024)
_ANY = (*GREY, *(dtype for dtype in LABELS if dtype not in GREY))
_DRAWN_AS = {"bool": "uint8"}
_CHANNEL_AXES = ("c", "channel")
_OME_VERSIONS = {"zarr3": ("0.5", "0.4"), "zarr2": ("0.4",)}
_DEFAULT_NAMES = {"zarr3": "dim_", "zarr2": "d"}
"""How Neuroglancer names an axis without a name: this prefix and its number."""


class ServedVoxels:
    """Voxels of a volume as numpy arrays are indexed, masks as 0 and 1.

    Args:
        volume: of any format.
    """

    def __init__(self, volume: Readable) -> None:
        self._volume, self.shape = volume, volume.shape
        self.dtype = np.dtype(_DRAWN_AS.get(volume.dtype, volume.dtype))

    def __getitem__(self, index: tuple[slice, slice, slice]) -> NDArray[Any]:
        start, stop = (to_zyx(values) for values in zip(*((int(s.start), int(s.stop)) for s in index), strict=True))
        return np.asarray(self._volume.read(Box(start, stop)), self.dtype)


@dataclass(frozen=True, slots=True)
class LocalVolume:
    """A volume of a folder, with what Neuroglancer makes of its metadata.

    Attributes:
        folder: folder to serve: an OME-Zarr group with all its levels, or one array.
        array: folder of the finest level.
        format: the Zarr version.
        axes: names of the stored axes as Neuroglancer completes them.
        layout: where z, y and x lie among them; others have length 1, except for a channel axis.
        dtype: name of the data type, such as `uint8`.
        place: voxel size and translation.
        max_downsampling: voxels of level 0 along x that a voxel of the coarsest level spans.
        is_multiscale: whether Neuroglancer takes axes and levels from the OME-Zarr metadata.
        has_run_record: whether a run of volseg wrote it: a map of probabilities.
        channels: channel names; empty without a channel axis.
        uncertainty: folder of the uncertainty of a map of volseg; None if there is none.
        is_uncertainty: whether it is the uncertainty of a map.
        voxels: of a volume that Neuroglancer does not read from its files; None for a Zarr.
    """

    folder: TargetPath
    array: TargetPath
    format: Format
    axes: tuple[str, ...]
    layout: AxisLayout
    dtype: str
    place: Place
    max_downsampling: float
    is_multiscale: bool
    has_run_record: bool
    channels: tuple[str, ...] = ()
    uncertainty: TargetPath | None = None
    is_uncertainty: bool = False
    voxels: ServedVoxels | None = None

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.layout.volume_shape

    @property
    def channel_axis(self) -> int | None:
        """Index of the channel axis; None if there is none."""
        return self.layout.channel_axis


def read_local_volume(folder: TargetPath) -> LocalVolume:
    """Read the metadata of a volume on disk or in an object store.

    Args:
        folder: a Zarr array, or an OME-Zarr group.

    Raises:
        SourceError: nothing there, not a Zarr, or not a volume with last axes (z, y, x), nor channels of one.
    """
    metadata = read_metadata(str(folder))
    node, multiscale, array = metadata.array, metadata.multiscale, target_path(metadata.location)
    channel_axis = metadata.channel_axis
    if channel_axis is not None and channel_axis not in _channel_axes(metadata):
        raise SourceError(
            f"{array} has shape {node.shape}, which is not one volume of axes (z, y, x), nor channels of one; "
            "store one volume by itself, or name the axis of its channels c"
        )
    is_multiscale = bool(metadata.levels_nm) and multiscale is not None and _is_supported(metadata.group, multiscale)
    has_run_record = "volseg" in (metadata.group or node).attributes
    uncertainty = array.parent / UNCERTAINTY
    return LocalVolume(
        folder=folder if is_multiscale else array,
        array=array,
        format=node.format,
        axes=_ome_axes(multiscale) if is_multiscale and multiscale is not None else _array_axes(node),
        layout=metadata.layout,
        dtype=metadata.dtype,
        place=metadata.place,
        max_downsampling=_max_downsampling(metadata) if is_multiscale else 1.0,
        is_multiscale=is_multiscale,
        has_run_record=has_run_record,
        channels=() if channel_axis is None else metadata.channels,
        uncertainty=uncertainty if has_run_record and _is_zarr(uncertainty) else None,
        is_uncertainty=array.parent.name == UNCERTAINTY and _is_map(array.parent.parent),
    )


def read_other_volume(location: str) -> LocalVolume:
    """Open a volume of any format, whose voxels this process decodes.

    Args:
        location: as in `open_readable`.

    Raises:
        SourceError: it cannot be read.
    """
    volume = open_readable(location, _ANY)
    return LocalVolume(
        folder=target_path(volume.location),
        array=target_path(volume.location),
        format="zarr3",
        axes=("z", "y", "x"),
        layout=AxisLayout(volume.shape, (0, 1, 2)),
        dtype=_DRAWN_AS.get(volume.dtype, volume.dtype),
        place=place_of(volume),
        max_downsampling=1.0,
        is_multiscale=False,
        has_run_record=False,
        voxels=ServedVoxels(volume),
    )


def sample_grey_range(volume: LocalVolume, channel: int | None = None) -> tuple[float, float] | None:
    """Return the grey range of the middle of a volume; None if it cannot be read or has no contrast."""
    z, y, x = (min(size // 2 - n // 2, 0) for n, size in zip(volume.shape, _CONTRAST_WINDOW, strict=True))
    window = Box.of_shape(_CONTRAST_WINDOW).relative_to((z, y, x)).intersection(Box.of_shape(volume.shape))
    try:
        if volume.voxels is not None:
            return grey_range(volume.voxels[window.slices])
        source = open_volume(str(volume.array), channel=channel, axes=volume.layout.names)
        return grey_range(source.read(window))
    except SourceError:
        return None  # a codec that only Neuroglancer reads, or a damaged chunk: the user can set the contrast


def _channel_axes(metadata: VolumeMetadata) -> list[int]:
    """Find the axes that the metadata call channels."""
    axes = (metadata.multiscale or {}).get("axes") or metadata.array.dimension_names
    axes = [axis if isinstance(axis, dict) else {"name": axis} for axis in axes]
    return [i for i, axis in enumerate(axes) if axis.get("type") == "channel" or axis["name"] in _CHANNEL_AXES]


def _is_zarr(folder: TargetPath) -> bool:
    with suppress(SourceError):
        return read_node(str(folder)) is not None
    return False


def _is_map(folder: TargetPath) -> bool:
    group = read_node(str(folder))
    return group is not None and "volseg" in group.attributes


def _max_downsampling(metadata: VolumeMetadata) -> float:
    finest, coarsest = metadata.levels_nm[0], metadata.levels_nm[-1]
    return 1.0 if finest is None or coarsest is None else coarsest[2] / finest[2]


def _ome_axes(multiscale: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(axis["name"] + ("'" if axis.get("type") == "channel" else "") for axis in multiscale["axes"])


def _array_axes(array: ZarrNode) -> tuple[str, ...]:
    prefix = _DEFAULT_NAMES[array.format]
    names = array.dimension_names or ("",) * len(array.shape or ())
    return tuple(name or f"{prefix}{i}" for i, name in enumerate(names))


def _is_supported(group: ZarrNode | None, multiscale: Mapping[str, Any]) -> bool:
    """Whether Neuroglancer reads these OME-Zarr metadata: other versions, and units such as `nm`, are errors there."""
    axes = multiscale.get("axes", [])
    if group is None or not all(isinstance(axis, dict) for axis in axes):
        return False
    units = [str(axis.get("unit", "meter")) for axis in axes]
    version = group.attributes.get("ome", multiscale).get("version")
    return version in _OME_VERSIONS[group.format] and all(
        unit.endswith(("meter", "second")) or unit == "angstrom" for unit in units
    )
