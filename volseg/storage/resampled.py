"""A volume, or a part of it, read at another voxel size, box by box: no box depends on how a volume is cut."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box, floor_to, mirror_span, to_zyx
from volseg.ops import reflect_gather
from volseg.ops.resample_sections import resample_means, resample_modes
from volseg.storage.axes import DEFAULT_OPTIONS
from volseg.storage.place import Placed, place_of
from volseg.storage.readers import open_readable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import Zyx
    from volseg.ops import Resampling
    from volseg.storage.axes import ReadOptions
    from volseg.storage.place import Place
    from volseg.storage.readers import Readable

_READ_BYTES = 1 << 27
"""Of the source's voxels that are read at once; more if a section has more."""


@dataclass(frozen=True)
class ResampledVolume(Placed):
    """A volume at another voxel size; the corner of its first voxel stays.

    Attributes:
        source: the volume.
        resampling: the sizes.
        region: part of the source that is read, as if there were no other; None for all.
    """

    source: Readable
    resampling: Resampling
    region: Box | None = None

    @property
    def location(self) -> str:
        """Of the source."""
        return self.source.location

    @property
    def dtype(self) -> str:
        """Of the source."""
        return self.source.dtype

    @property
    def part(self) -> Box:
        """The part of the source that is read."""
        return self.region or Box.of_shape(self.source.shape)

    @property
    def shape(self) -> Zyx:
        """Voxels along z, y, x."""
        return self.resampling.shape(self.part.shape)

    @property
    def place(self) -> Place:  # type: ignore[override]  # read-only
        """Voxel size and translation."""
        place = place_of(self.source).with_voxel_nm(self.resampling.source_nm)
        return place.moved(self.part.start).resampled(self.resampling.target_nm)

    @property
    def chunk(self) -> Zyx:
        """Voxels that are made of one chunk of the source, about."""
        ratios = self.resampling.ratios
        return to_zyx(
            min(n, max(1, int(size / ratio)))
            for size, ratio, n in zip(self.source.chunk, ratios, self.shape, strict=True)
        )

    def source_box(self, box: Box) -> Box:
        """The voxels of the source that a box inside the volume is made of."""
        z, y, x = self.part.start
        return self.resampling.source_box(self.part.shape, box).relative_to((-z, -y, -x))

    def read(self, box: Box) -> NDArray[Any]:
        """Read a box, mirrored beyond the edges of the resampled volume.

        Raises:
            SourceError: the source cannot be read.
        """
        spans = [mirror_span(a, b, n) for a, b, n in zip(box.start, box.stop, self.shape, strict=True)]
        inside = Box(to_zyx(low for low, _ in spans), to_zyx(high for _, high in spans))
        return reflect_gather(self._read_inside(inside), inside.start, box.start, box.stop, self.shape)

    def confirm(self) -> None:
        """Refuse a source that is gone or has changed, if it can tell.

        Raises:
            SourceError: it is.
        """
        confirm = getattr(self.source, "confirm", None)
        if confirm is not None:
            confirm()

    def _read_inside(self, box: Box) -> NDArray[Any]:
        if not box.voxels:
            return np.empty(box.shape, self.dtype)
        taps = self.resampling.taps(self.part.shape, box)
        sections = _Sections(self.source, self.source_box(box), self.part.start[0])
        result = np.empty(box.shape, self.dtype)
        if self.resampling.kind == "mean":
            resample_means(sections, taps, result)
        else:
            resample_modes(sections, taps, result)
        return result


@dataclass(frozen=True, slots=True)
class VolumeRef:
    """A volume that worker processes open again.

    Attributes:
        location: as the driver opened it: of the array, for a level of an OME-Zarr.
        options: what the user states of it.
        resampling: to another voxel size; None for its own.
    """

    location: str
    options: ReadOptions = DEFAULT_OPTIONS
    resampling: Resampling | None = None

    def open(self) -> Readable:
        """Open the volume, of grey values."""
        volume = open_readable(self.location, options=self.options)
        return volume if self.resampling is None else ResampledVolume(volume, self.resampling)


def stored_volume(volume: Readable) -> Readable:
    """The volume that is stored: the source of a resampled one, any other itself."""
    return volume.source if isinstance(volume, ResampledVolume) else volume


def resampling_of(volume: Readable) -> Resampling | None:
    """How a volume is resampled; None if it is not."""
    return volume.resampling if isinstance(volume, ResampledVolume) else None


def read_bytes_per_voxel(volume: Readable) -> int:
    """Bytes per voxel that reading a large box takes: of itself, and of the source's voxels that it is made of."""
    item, resampling = np.dtype(volume.dtype).itemsize, resampling_of(volume)
    if resampling is None:
        return int(item)
    # Of a large box the source's voxels are read in parts: `_READ_BYTES`.
    return int(item + min(8, ceil(item * prod(resampling.ratios) / 2)))


class _Sections:
    """Sections of a box of a source, each read once; numbers ascend.

    Args:
        source: the volume.
        box: of it.
        first: number of the section that counts as 0.
    """

    def __init__(self, source: Readable, box: Box, first: int) -> None:
        self._source, self._box, self._first = source, box, first
        size = prod(box.shape[1:]) * np.dtype(source.dtype).itemsize
        self._depth = max(1, min(source.chunk[0], _READ_BYTES // max(size, 1)))
        self._held: dict[int, NDArray[Any]] = {}

    def __getitem__(self, number: int) -> NDArray[Any]:
        """A section (y, x)."""
        z = number + self._first
        if z not in self._held:
            stop = min(floor_to(z, self._depth) + self._depth, self._box.stop[0])
            (_, y, x), (_, y_stop, x_stop) = self._box.start, self._box.stop
            part = self._source.read(Box((z, y, x), (stop, y_stop, x_stop)))
            self._held.update(zip(range(z, stop), part, strict=True))
        return self._held[z]

    def forget(self, below: int) -> None:
        """Let sections below a number go."""
        for z in [z for z in self._held if z < below + self._first]:
            del self._held[z]
