"""Volumes and channels of a viewer, and how each is drawn: as raw EM, membranes or labels."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import ConfigError, SourceError
from volseg.storage import ObjectPath, is_object_url, is_zarr, target_path
from volseg.storage.zip_folder import inside_zip
from volseg.view.local_volume import LocalVolume, read_local_volume, read_other_volume

if TYPE_CHECKING:
    from collections.abc import Sequence

_DRAWABLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
_MASK = "bool"
_IDS = ("uint32", "int32", "uint64")
_PROBABILITIES = ("uint8", "float32")
_MEMBRANE = "membrane"
_PRIMARIES = 3
"""Affinities visible at first: red, green and blue."""
_MEMBRANE_NAME = re.compile(r"membrane|prob|pred|boundar", re.IGNORECASE)
_AFFINITY_NAME = re.compile(r"aff", re.IGNORECASE)
_LABEL_NAME = re.compile(r"label|truth|segment|neuron|instance", re.IGNORECASE)


class Role(Enum):
    """Kind of a layer, in drawing order: the first is at the bottom."""

    AFFINITY = "affinity"
    """One colour of an image of affinities, under a half transparent raw EM."""
    RAW = "raw"
    IMAGE = "image"
    """Another grey image, half transparent over the raw EM."""
    UNKNOWN = "auto"
    """A URL whose name matches no kind: Neuroglancer decides."""
    LABELS = "labels"
    UNCERTAINTY = "uncertainty"
    MEMBRANE = "membrane"


@dataclass(frozen=True, slots=True)
class LayerSource:
    """One volume to show, or one channel of it.

    Attributes:
        name: unique name of the layer.
        location: path or URL given by the user.
        role: how to draw it.
        volume: the volume on disk; None for a URL, which only Neuroglancer opens.
        channel: index of the channel; None if there is no channel axis.
        visible: whether it is visible at first.
    """

    name: str
    location: str
    role: Role
    volume: LocalVolume | None
    channel: int | None = None
    visible: bool = True


def find_layer_sources(locations: Sequence[str]) -> list[LayerSource]:
    """Find the volumes to show and their channels, in the given order.

    A volume with a run record of volseg is a membrane map at any position. The first of the others is the raw EM;
    later ones are membranes or labels by name, labels by data type, or other images. The uncertainty of a map is added
    at the end, hidden, unless it is among the locations.

    Args:
        locations: paths of volumes of any format, or URLs.

    Raises:
        ConfigError: no location.
        SourceError: a path is not a volume, or has a data type that Neuroglancer does not draw.
    """
    if not locations:
        raise ConfigError("nothing to view; name at least one volume")
    volumes = [(location, _local_volume(location)) for location in locations]
    volumes += _uncertainties([volume for _, volume in volumes if volume is not None])
    names = unique([_name(location, volume) for location, volume in volumes])
    sources: list[LayerSource] = []
    has_raw = False
    for i, (name, (location, volume)) in enumerate(zip(names, volumes, strict=True)):
        role = role_of(name, volume, has_raw=has_raw)
        has_raw = has_raw or role is Role.RAW
        sources += split_channels(LayerSource(name, location, role, volume, visible=i < len(locations)))
    return sources


def split_channels(source: LayerSource) -> list[LayerSource]:
    """Split a volume into one source per channel; a volume without channels stays one.

    The first three affinities are visible, as red, green and blue. Of other channels, the one named membrane is;
    without it, all classes of a membrane map, or the first channel of another volume.
    """
    labels = source.volume.channels if source.volume is not None else ()
    role = source.role
    if role is Role.MEMBRANE and labels and all(map(_AFFINITY_NAME.search, labels)):
        role, visible = Role.AFFINITY, range(_PRIMARIES)
    elif _MEMBRANE in labels:
        visible = range(labels.index(_MEMBRANE), labels.index(_MEMBRANE) + 1)
    else:
        visible = range(len(labels) if role is Role.MEMBRANE else 1)
    return [
        replace(source, name=f"{source.name}: {label}", role=role, channel=i, visible=source.visible and i in visible)
        for i, label in enumerate(unique(labels))
    ] or [source]


def role_of(name: str, volume: LocalVolume | None, *, has_raw: bool) -> Role:
    """Choose how to draw a volume, given whether an earlier one is the raw EM."""
    dtype = None if volume is None else volume.dtype
    if volume is not None and volume.is_uncertainty:
        return Role.UNCERTAINTY
    if volume is not None and volume.has_run_record:
        return Role.MEMBRANE
    if dtype in _IDS:
        return Role.LABELS
    if volume is not None and volume.channels:  # raw EM has none
        return Role.MEMBRANE if dtype in _PROBABILITIES else Role.IMAGE
    if not has_raw:
        return Role.RAW
    if _MEMBRANE_NAME.search(name) and dtype in (None, *_PROBABILITIES):
        return Role.MEMBRANE
    if dtype == "uint16" or (_LABEL_NAME.search(name) and dtype != "float32"):
        return Role.LABELS
    return Role.UNKNOWN if dtype is None else Role.IMAGE


def unique(names: Sequence[str]) -> list[str]:
    """Return the names, with a number appended to each repeated one.

    >>> unique(["raw", "membrane", "raw"])
    ['raw', 'membrane', 'raw 2']
    """
    counts: Counter[str] = Counter()
    result: list[str] = []
    for name in names:
        counts[name] += 1
        result.append(name if counts[name] == 1 else f"{name} {counts[name]}")
    return result


def is_url(location: str) -> bool:
    """Whether a location is a URL that Neuroglancer opens by itself; this process serves those of object stores.

    >>> is_url("https://host/raw.zarr"), is_url("raw.zarr"), is_url("file:///data/raw.zarr"), is_url("s3://b/raw.zarr")
    (True, False, False, False)
    """
    return "://" in location and not location.startswith("file://") and not is_object_url(location)


def _local_volume(location: str) -> LocalVolume | None:
    if is_url(location):
        return None
    path = location.removeprefix("file://")
    place = target_path(path)
    is_folder = is_zarr(path) and (isinstance(place, ObjectPath) or inside_zip(place) is None)
    place = place if isinstance(place, ObjectPath) else place.resolve()
    volume = read_local_volume(place) if is_folder else read_other_volume(path)
    if volume.dtype == _MASK:
        volume = read_other_volume(path)
    if volume.dtype not in _DRAWABLE:
        raise SourceError(
            f"{location} holds {volume.dtype}, which Neuroglancer does not draw; store it as one of "
            f"{', '.join(_DRAWABLE)}"
        )
    return volume


def _uncertainties(volumes: Sequence[LocalVolume]) -> list[tuple[str, LocalVolume | None]]:
    """Find the uncertainties of the maps among these volumes, except those that are among the volumes themselves."""
    groups = {volume.array.parent for volume in volumes}
    locations = dict.fromkeys(
        str(volume.uncertainty) for volume in volumes if volume.uncertainty not in {None, *groups}
    )
    return [(location, _local_volume(location)) for location in locations]


def _name(location: str, volume: LocalVolume | None) -> str:
    if volume is None or not volume.is_uncertainty:
        return _stem(location)
    return f"{_stem(str(volume.array.parent.parent))} {volume.array.parent.name}"


def _stem(location: str) -> str:
    """Return a readable name: the last part of a path that is not the number of a level."""
    path = location.partition("://")[2] or str(Path(location).resolve())
    parts = [part for part in path.partition("|")[0].split("/") if part]
    names = [part for part in parts if not part.isdigit()]
    return re.sub(r"(\.ome)?\.(zarr|n5)$", "", (names or parts or ["volume"])[-1])
