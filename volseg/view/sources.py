"""What is shown: the volumes of a viewer, and whether each is raw EM, membranes or labels."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

from volseg.errors import ConfigError, SourceError
from volseg.view.metadata import Facts, read_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

_DRAWABLE = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "float32")
_IDS = ("uint32", "int32", "uint64")
_MEMBRANE_NAME = re.compile(r"membrane|prob|pred|boundar", re.IGNORECASE)
_LABEL_NAME = re.compile(r"label|truth|segment|neuron|instance", re.IGNORECASE)


class Role(Enum):
    """How a volume is drawn, in the order in which the layers lie on each other."""

    RAW = "raw"
    IMAGE = "image"
    """A further image in grey, laid over the raw EM by half."""
    UNKNOWN = "auto"
    """A URL whose name tells nothing: Neuroglancer decides."""
    LABELS = "labels"
    MEMBRANE = "membrane"


@dataclass(frozen=True, slots=True)
class Source:
    """One volume to show.

    Attributes:
        name: the layer's, one of a kind.
        location: as the user gave it.
        role: how to draw it.
        facts: what its metadata says; None for a URL, which Neuroglancer alone opens.
    """

    name: str
    location: str
    role: Role
    facts: Facts | None


def find_sources(locations: Sequence[str]) -> list[Source]:
    """Find the volumes to show, in the order given.

    A volume with a run record of volseg is a membrane map, wherever it stands. Of the others the first is the raw
    EM; those behind it are membranes or labels by their name, labels by their type, or further images.

    Args:
        locations: paths of Zarr arrays or OME-Zarr groups, or URLs.

    Raises:
        ConfigError: no location.
        SourceError: a path is no volume, or holds a type that Neuroglancer does not draw.
    """
    if not locations:
        raise ConfigError("nothing to view; name at least one volume")
    found = [_facts_at(location) for location in locations]
    sources: list[Source] = []
    has_raw = False
    for name, location, facts in zip(unique([_stem(at) for at in locations]), locations, found, strict=True):
        role = role_of(name, facts, has_raw=has_raw)
        has_raw = has_raw or role is Role.RAW
        sources.append(Source(name, location, role, facts))
    return sources


def role_of(name: str, facts: Facts | None, *, has_raw: bool) -> Role:
    """How to draw a volume, given whether one before it is the raw EM."""
    dtype = None if facts is None else facts.dtype
    if facts is not None and facts.by_volseg:
        return Role.MEMBRANE
    if dtype in _IDS:
        return Role.LABELS
    if not has_raw:
        return Role.RAW
    if _MEMBRANE_NAME.search(name) and dtype in (None, "uint8", "float32"):
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


def _stem(location: str) -> str:
    """A name for people: the last part of a path that is not just the number of a level."""
    path = location.partition("://")[2] or str(Path(location).resolve())
    parts = [part for part in path.partition("|")[0].split("/") if part]
    named = [part for part in parts if not part.isdigit()]
    return re.sub(r"(\.ome)?\.(zarr|n5)$", "", (named or parts or ["volume"])[-1])
