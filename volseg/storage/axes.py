"""Where z, y and x lie among the axes of a stored array, as its metadata or the user state."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from volseg.blocks import mirror_span
from volseg.errors import ConfigError, SourceError
from volseg.ops import reflect_gather
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from volseg.blocks import Box, Zyx

T = TypeVar("T")

_ZYX = ("z", "y", "x")
_MAX_SAMPLES, _MIN_SIDE = 4, 64
"""Axes without names of which the last is so short are probably y, x and samples, not z, y, x."""
_MAX_VOXELS = 1 << 62
"""Positions of voxels are 64-bit integers."""
_MAX_CHANNELS = 1 << 16
_UNNAMED = re.compile(r"|dim_\d+", re.IGNORECASE)
"""Names that say nothing, such as xarray's dim_0."""


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """What the user states of a volume beyond its location.

    Attributes:
        axes: names of the stored axes, or of the last ones; None to take those of the metadata.
        channel: name or number along the channel or time axis; None if there is none.
        missing: what to read for numbers that a folder of numbered sections lacks: nothing (`refuse`), zeros, or the
            nearest section.
    """

    axes: tuple[str, ...] | None = None
    channel: str | int | None = None
    missing: Literal["refuse", "blank", "nearest"] = "refuse"

    def __str__(self) -> str:
        axes = "the axes of its metadata" if self.axes is None else f"axes {','.join(self.axes)}"
        channel = "no channel" if self.channel is None else f"channel {self.channel}"
        return f"{axes}, {channel}, missing sections: {self.missing}"


DEFAULT_OPTIONS = ReadOptions()


@dataclass(frozen=True, slots=True)
class AxisLayout:
    """How to read (z, y, x) from a stored array.

    Attributes:
        shape: of the stored array.
        axes: stored axis of z, of y and of x.
        channel_axis: the one other axis that is longer than 1; None if there is none.
        channel: index along it.
        origin: first voxel (z, y, x) of the volume in the array.
        extent: voxels (z, y, x) of the volume; None for the whole array.
    """

    shape: tuple[int, ...]
    axes: tuple[int, int, int]
    channel_axis: int | None = None
    channel: int = 0
    origin: Zyx = (0, 0, 0)
    extent: Zyx | None = None

    def zyx(self, values: Sequence[T]) -> tuple[T, T, T]:
        """Select those of z, y and x from values of all stored axes, or of the spatial ones in stored order.

        Raises:
            ValueError: other numbers of values.
        """
        if len(values) not in (3, len(self.shape)):
            raise ValueError(f"{len(values)} values for {len(self.shape)} axes")
        z, y, x = (values[axis] for axis in (self.axes if len(values) == len(self.shape) else self._ranks))
        return z, y, x

    @property
    def volume_shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.extent or self.zyx(self.shape)

    @property
    def other_axes(self) -> list[int]:
        """The stored axes that are not z, y or x."""
        return [axis for axis in range(len(self.shape)) if axis not in self.axes]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stored axes: z, y, x, and c for all others."""
        return tuple(_ZYX[self.axes.index(axis)] if axis in self.axes else "c" for axis in range(len(self.shape)))

    @property
    def _ranks(self) -> list[int]:
        """Rank of z, y and x among the spatial axes."""
        return [sorted(self.axes).index(axis) for axis in self.axes]

    def read(self, stored: Callable[[tuple[int | slice, ...]], Any], box: Box, dtype: str) -> NDArray[Any]:
        """Read a box (z, y, x) in the machine's byte order, mirrored beyond the edges of the volume.

        Args:
            stored: returns the array at an index.
            box: of the volume.
            dtype: of its voxels.
        """
        spans = [mirror_span(a, b, n) for a, b, n in zip(box.start, box.stop, self.volume_shape, strict=True)]
        index: list[int | slice] = [self.channel if axis == self.channel_axis else 0 for axis in range(len(self.shape))]
        for axis, (low, high), first in zip(self.axes, spans, self.origin, strict=True):
            index[axis] = slice(low + first, high + first)
        voxels = np.asarray(stored(tuple(index)), dtype).transpose(self._ranks)
        return reflect_gather(voxels, [low for low, _ in spans], box.start, box.stop, self.volume_shape)


def axis_layout(
    location: str, shape: tuple[int, ...], names: Sequence[str] = (), stated: tuple[str, ...] | None = None
) -> AxisLayout:
    """Find z, y and x among the axes of an array; without names these are the last three.

    Args:
        location: of the array, for messages.
        shape: of the array.
        names: of its axes in the metadata; empty if these name none.
        stated: names of its last axes by the user, which replace those of the metadata.

    Raises:
        SourceError: z, y and x are not among the names, or there is no single volume.
        ConfigError: the stated names do not fit the array.

    >>> axis_layout("raw", (2, 64, 64, 8), ["c", "x", "y", "z"], ("x", "y", "z")).volume_shape
    (8, 64, 64)
    """
    _refuse_shape(location, shape)
    known = [name.lower() for name in names] if len(names) == len(shape) else [""] * len(shape)
    known = ["" if _UNNAMED.fullmatch(name) else name for name in known]
    if stated is not None:
        known = _with_stated(location, shape, known, stated)
    elif all(name in ("", default) for name, default in zip(known[-3:], _ZYX, strict=True)) and not any(known[:-3]):
        known[-3:] = _ZYX
        smallest = _MAX_SAMPLES + 1 if len(shape) > 3 else _MIN_SIDE
        if not any(names) and shape[-1] <= _MAX_SAMPLES and min(shape[-3:-1]) >= smallest:
            raise SourceError(f"{location} has shape {shape} and names no axes; state them, such as --axes z,y,x,c")
    if any(known.count(name) != 1 for name in _ZYX):
        raise SourceError(
            f"{location} has axes {', '.join(name or '?' for name in known)}, not z, y, x; {_way_out(_ZYX)}"
        )
    z, y, x = (known.index(name) for name in _ZYX)
    others = [axis for axis, n in enumerate(shape) if n != 1 and axis not in (z, y, x)]
    if len(others) > 1:
        raise SourceError(
            f"{location} has shape {shape}, which is not one volume of axes (z, y, x); "
            "store each volume as an array of its own"
        )
    if others and shape[others[0]] > _MAX_CHANNELS:
        raise SourceError(f"{location} has shape {shape}, with more than {_MAX_CHANNELS} channels; check its axes")
    return AxisLayout(shape, (z, y, x), others[0] if others else None)


def refuse_other_order(layout: AxisLayout, location: str) -> None:
    """Refuse an array whose axes lie in another order than z, y, x, unless the user has stated it.

    Raises:
        SourceError: names the order and the way out.
    """
    order = [name for name in layout.names if name in _ZYX]
    if order != list(_ZYX):
        names = ", ".join(layout.names)
        raise SourceError(f"{location} has axes {names}, and volseg reads z, y, x; {_way_out(order)}")


def at_channel(
    layout: AxisLayout, location: str, channel: str | int | None, labels: Sequence[str] = (), kind: str = "channels"
) -> AxisLayout:
    """Choose a channel by its name or number.

    Args:
        layout: of the array.
        location: of the array, for messages.
        channel: name or number; None if there is no channel axis.
        labels: names of the channels; numbers if there are as many other ones.
        kind: of what the axis holds.

    Raises:
        SourceError: there are several and none is chosen.
        ConfigError: there is no such channel.
    """
    count = 1 if layout.channel_axis is None else layout.shape[layout.channel_axis]
    names = list(labels) if len(labels) == count else [str(number) for number in range(count)]
    if channel is None:
        if layout.channel_axis is None:
            return layout
        raise SourceError(
            f"{location} holds {count} {kind} in shape {layout.shape}; choose one of them ({', '.join(names)}) with "
            "--channel, where the command has it, or store it as an array of its own with: volseg convert --channel"
        )
    name = str(channel)
    if isinstance(channel, int):  # a number is never a name: channels may be named by other numbers
        index = channel if channel >= 0 else count
    else:
        index = names.index(name) if name in names else int(name) if name.isascii() and name.isdecimal() else count
    if index >= count:
        remedy = ", or leave --channel out" if layout.channel_axis is None else ""
        hint = did_you_mean(name, names)
        raise ConfigError(f"{location} has no channel {name}{hint}; choose from {', '.join(names)}{remedy}")
    return replace(layout, channel=index)


def named_axes(count: int, *stated: object) -> tuple[str, ...]:
    """Return the first of several statements that names as many axes; empty if none does.

    >>> named_axes(4, None, ["z", "y", "x"], ["c^", "z", "y", "x"])  # daisy marks axes that are not spatial by ^
    ('c', 'z', 'y', 'x')
    """
    for names in stated:
        if isinstance(names, list | tuple) and len(names) == count and any(names):
            return tuple("" if name is None else str(name).rstrip("^") for name in names)
    return ()


def parse_axes(text: str) -> tuple[str, ...]:
    """Parse the names of axes, as in `--axes`.

    Raises:
        ConfigError: z, y and x are not each named once.

    >>> parse_axes("X, y,z")
    ('x', 'y', 'z')
    """
    names = tuple(name.strip().lower() for name in text.split(","))
    if not all(names) or any(names.count(name) != 1 for name in (*_ZYX, *names)):
        raise ConfigError(f"axes {text!r} do not name z, y and x once each; write such as x,y,z or c,z,y,x")
    return names


def _refuse_shape(location: str, shape: tuple[int, ...]) -> None:
    if len(shape) < 3:
        raise SourceError(
            f"{location} has shape {shape}, which is not one volume of axes (z, y, x); stack its sections"
        )
    if 0 in shape:
        raise SourceError(f"{location} has shape {shape}, so it has no voxels; name another array")
    if prod(shape) > _MAX_VOXELS:
        raise SourceError(f"{location} has shape {shape}, above 2^62 voxels in all; check its metadata")


def _with_stated(location: str, shape: tuple[int, ...], known: list[str], stated: tuple[str, ...]) -> list[str]:
    if len(stated) > len(shape):
        raise ConfigError(
            f"--axes {','.join(stated)} names {len(stated)} axes, but {location} has {len(shape)}: {shape}"
        )
    return [name if name not in _ZYX else "" for name in known[: len(shape) - len(stated)]] + list(stated)


def _way_out(order: Sequence[str]) -> str:
    text = ",".join(order)
    return f"state its order with --axes {text}, or convert it first with: volseg convert --axes {text}"
