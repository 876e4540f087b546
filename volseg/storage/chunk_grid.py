"""The chunks of an array as its store names them; of a sharded Zarr, its shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from volseg.blocks import Box, to_zyx, zip3
from volseg.storage.zip_folder import ZipFolder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from zarr.storage import LocalStore

    from volseg.blocks import Zyx
    from volseg.storage.axes import AxisLayout

_PROBE = re.compile(r"(?P<prefix>\D*)1(?P<separator>[./])2(?:(?P=separator)\d+)+")


@dataclass(frozen=True)
class ChunkGrid:
    """Chunks of a volume, numbered along (z, y, x).

    Attributes:
        store: that holds them.
        layout: where z, y and x lie in the array, and the channel.
        chunk: unit of storage, in voxels along the stored axes.
        fill: value that a missing chunk is read as; None if that is not known.
        encode: returns the name of a chunk from its number along the stored axes.
        probe: returns whether the store has a key, None if that cannot be told; None if keys are names of files.
    """

    store: Any
    layout: AxisLayout
    chunk: tuple[int, ...]
    fill: Any
    encode: Callable[[tuple[int, ...]], str]
    probe: Callable[[str], bool | None] | None = None

    def covering(self, box: Box) -> Box:
        """Numbers of the chunks that hold a box of voxels inside the volume."""
        chunk, stored = self.layout.zyx(self.chunk), box.relative_to(to_zyx(-n for n in self.layout.origin))
        return Box(
            to_zyx(a // c for a, c in zip3(stored.start, chunk)),
            to_zyx(-(-b // c) for b, c in zip3(stored.stop, chunk)),
        )

    def stored(self, number: Zyx) -> tuple[int, ...]:
        """Number of a chunk along the stored axes."""
        position = [0] * len(self.layout.shape)
        if (axis := self.layout.channel_axis) is not None:
            position[axis] = self.layout.channel // self.chunk[axis]
        for axis, n in zip(self.layout.axes, number, strict=True):
            position[axis] = n
        return tuple(position)

    def key(self, number: Zyx) -> str:
        """Name of a chunk in the store."""
        return self.encode(self.stored(number))

    def naming(self) -> tuple[str, str] | None:
        """What stands before and between the numbers in a name; None for an encoding that is not known."""
        match = _PROBE.fullmatch(self.encode(tuple(range(1, len(self.layout.shape) + 1))))
        return (match["prefix"], match["separator"]) if match else None

    def missing(
        self, index: tuple[int | slice, ...], voxels: NDArray[Any], is_missing: Callable[[str], bool]
    ) -> list[Zyx]:
        """Find the chunks that were read as the fill value because the store does not have them.

        Only those are looked for of which one voxel has the fill value.

        Args:
            index: of the stored array that was read.
            voxels: that were read.
            is_missing: whether the store lacks a key.
        """
        spans = [(i, i + 1) if isinstance(i, int) else (i.start, i.stop) for i in index]
        numbers = [range(a // c, -(-b // c)) for (a, b), c in zip(spans, self.chunk, strict=True)]
        first = [[max(n * c, a) - a for n in one] for one, c, (a, _) in zip(numbers, self.chunk, spans, strict=True)]
        sample = voxels.reshape([b - a for a, b in spans])[np.ix_(*first)]
        return [
            number
            for at in np.argwhere(self._is_fill(sample))
            if is_missing(self.key(number := self.layout.zyx([one[k] for one, k in zip(numbers, at, strict=True)])))
        ]

    def _is_fill(self, voxels: NDArray[Any]) -> NDArray[np.bool_]:
        fill = self.fill
        if fill is None:  # then any value may be read
            return np.ones(voxels.shape, bool)
        same: NDArray[np.bool_] = (voxels == fill) | ((voxels != voxels) & bool(fill != fill))
        return same

    def rows(self, span: Box) -> Iterator[tuple[int, ...]]:
        """The numbers of a box of chunks along all stored axes but the last."""
        start, stop = self.stored(span.start), self.stored(to_zyx(n - 1 for n in span.stop))
        return product(*[range(a, b + 1) for a, b in zip(start, stop, strict=True)][:-1])


@runtime_checkable
class Chunked(Protocol):
    """A volume whose store names its chunks, so that a missing one is told from one of the fill value."""

    @property
    def location(self) -> str:
        """Path or URL."""
        ...

    @property
    def chunk_grid(self) -> ChunkGrid:
        """The chunks as the store names them."""
        ...

    def read_checked(self, box: Box) -> tuple[NDArray[Any], list[Zyx]]:
        """Read a box, and the numbers of its missing chunks."""
        ...

    def confirm(self) -> None:
        """Refuse a source that is gone or has changed."""
        ...


def lacks(store: LocalStore | ZipFolder, key: str) -> bool:
    """Whether a folder or a zip file does not hold a key.

    Raises:
        OSError: that cannot be told.
    """
    if isinstance(store, ZipFolder):
        return key not in store.keys
    try:
        (store.root / key).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False
