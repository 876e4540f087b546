"""What is shown: the volumes and channels of a viewer, and whether each is raw EM, membranes or labels."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import ConfigError, SourceError
from volseg.storage.zarr_metadata import Facts, read_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

_DRAWABLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
_IDS = ("uint32", "int32", "uint64")
_PROBABILITIES = ("uint8", "float32")
_MEMBRANE = "membrane"
_PRIMARIES = 3
"""Affinities that are shown at once: one for red, one for green, one for blue."""
_MEMBRANE_NAME = re.compile(r"membrane|prob|pred|boundar", re.IGNORECASE)
_AFFINITY_NAME = re.compile(r"aff", re.IGNORECASE)
_LABEL_NAME = re.compile(r"label|truth|segment|neuron|instance", re.IGNORECASE)


class Role(Enum):
    """How a volume is drawn, in the order in which the layers lie on each other."""

    AFFINITY = "affinity"
    """One of the colours of an image of affinities, which the raw EM is laid over by half."""
    RAW = "raw"
    IMAGE = "image"
    """A further image in grey, laid over the raw EM by half."""
    UNKNOWN = "auto"
    """A URL whose name tells nothing: Neuroglancer decides."""
    LABELS = "labels"
    UNCERTAINTY = "uncertainty"
    MEMBRANE = "membrane"


@dataclass(frozen=True, slots=True)
class Source:
    """One volume to show, or one channel of it.

    Attributes:
        name: the layer's, one of a kind.
        location: as the user gave it.
        role: how to draw it.
        facts: what its metadata says; None for a URL, which Neuroglancer alone opens.
        channel: which of the volume's channels; None where there is one volume.
        visible: whether it is drawn at first.
    """

    name: str
    location: str
    role: Role
    facts: Facts | None
    channel: int | None = None
    visible: bool = True


def find_sources(locations: Sequence[str]) -> list[Source]:
    """Find the volumes to show, in the order given, and their channels.

    A volume with a run record of volseg is a membrane map, wherever it stands. Of the others the first is the raw
    EM; those behind it are membranes or labels by their name, labels by their type, or further images. The
    uncertainty of a map comes behind them all, hidden, unless it was given itself.

    Args:
        locations: paths of Zarr arrays or OME-Zarr groups, or URLs.

    Raises:
        ConfigError: no location.
        SourceError: a path is no volume, or holds a type that Neuroglancer does not draw.
    """
    if not locations:
        raise ConfigError("nothing to view; name at least one volume")
    found = [(location, _facts_at(location)) for location in locations]
    beside = _uncertainties_beside([facts for _, facts in found if facts is not None])
    names = unique([_name(location, facts) for location, facts in [*found, *beside]])
    sources: list[Source] = []
    has_raw = False
    for place, (name, (location, facts)) in enumerate(zip(names, [*found, *beside], strict=True)):
        role = role_of(name, facts, has_raw=has_raw)
        has_raw = has_raw or role is Role.RAW
        sources += channels_of(Source(name, location, role, facts, visible=place < len(found)))
    return sources


def channels_of(source: Source) -> list[Source]:
    """A volume's channels, each by itself, or the volume where it has none.

    The first three of several affinities are shown at once, as red, green and blue; of other channels the one called
    membrane, and without it all that are classes, or the first.
    """
    labels = source.facts.channels if source.facts is not None else ()
    role = source.role
    if role is Role.MEMBRANE and labels and all(map(_AFFINITY_NAME.search, labels)):
        role, shown = Role.AFFINITY, range(_PRIMARIES)
    elif _MEMBRANE in labels:
        shown = range(labels.index(_MEMBRANE), labels.index(_MEMBRANE) + 1)
    else:
        shown = range(len(labels) if role is Role.MEMBRANE else 1)
    return [
        replace(
            source, name=f"{source.name}: {label}", role=role, channel=place, visible=source.visible and place in shown
        )
        for place, label in enumerate(unique(labels))
    ] or [source]


def role_of(name: str, facts: Facts | None, *, has_raw: bool) -> Role:
    """How to draw a volume, given whether one before it is the raw EM."""
    dtype = None if facts is None else facts.dtype
    if facts is not None and facts.is_uncertainty:
        return Role.UNCERTAINTY
    if facts is not None and facts.by_volseg:
        return Role.MEMBRANE
    if dtype in _IDS:
        return Role.LABELS
    if facts is not None and facts.channels:  # the raw EM has none
        return Role.MEMBRANE if dtype in _PROBABILITIES else Role.IMAGE
    if not has_raw:
        return Role.RAW
    if _MEMBRANE_NAME.search(name) and dtype in (None, *_PROBABILITIES):
        return Role.MEMBRANE
    if dtype == "uint16" or (_LABEL_NAME.search(name) and dtype != "float32"):
        return Role.LABELS
    return Role.UNKNOWN if dtype is None else Role.IMAGE


def unique(names: Sequence[str]) -> list[str]:
    """The names, with a number behind each that was taken already.

    >>> unique(["raw", "membrane", "raw"])
    ['raw', 'membrane', 'raw 2']
    """
    seen: Counter[str] = Counter()
    result: list[str] = []
    for name in names:
        seen[name] += 1
        result.append(name if seen[name] == 1 else f"{name} {seen[name]}")
    return result


def is_url(location: str) -> bool:
    """Whether Neuroglancer opens a location by itself.

    >>> is_url("s3://bucket/raw.zarr"), is_url("raw.zarr"), is_url("file:///data/raw.zarr")
    (True, False, False)
    """
    return "://" in location and not location.startswith("file://")


def _facts_at(location: str) -> Facts | None:
    if is_url(location):
        return None
    facts = read_facts(Path(location.removeprefix("file://")).resolve())
    if facts.dtype not in _DRAWABLE:
        raise SourceError(
            f"{location} holds {facts.dtype}, which Neuroglancer does not draw; store it as one of "
            f"{', '.join(_DRAWABLE)}"
        )
    return facts


def _uncertainties_beside(found: Sequence[Facts]) -> list[tuple[str, Facts | None]]:
    """The uncertainties of the maps among these volumes, but for those that are among them too."""
    given = {facts.array.parent for facts in found}
    beside = dict.fromkeys(str(facts.uncertainty) for facts in found if facts.uncertainty not in {None, *given})
    return [(location, _facts_at(location)) for location in beside]


def _name(location: str, facts: Facts | None) -> str:
    if facts is None or not facts.is_uncertainty:
        return _stem(location)
    return f"{_stem(str(facts.array.parent.parent))} {facts.array.parent.name}"


def _stem(location: str) -> str:
    """A name for people: the last part of a path that is not just the number of a level."""
    path = location.partition("://")[2] or str(Path(location).resolve())
    parts = [part for part in path.partition("|")[0].split("/") if part]
    named = [part for part in parts if not part.isdigit()]
    return re.sub(r"(\.ome)?\.(zarr|n5)$", "", (named or parts or ["volume"])[-1])
