"""The chunks of a Zarr array as its store names them; of a sharded array, its shards."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box, to_zyx, zip3

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import zarr
    from numpy.typing import NDArray
    from zarr.storage import LocalStore

    from volseg.blocks import Zyx
    from volseg.storage.axes import AxisLayout

_PROBE = re.compile(r"(?P<prefix>\D*)1(?P<separator>[./])2(?:(?P=separator)\d+)+")


@dataclass(frozen=True)
class ChunkGrid:
    """Chunks of a volume, numbered along (z, y, x).

    Attributes:
        array: that is read.
        layout: where z, y and x lie in it, and the channel.
    """

    array: zarr.Array[Any]
    layout: AxisLayout

    @property
    def chunk(self) -> tuple[int, ...]:
        """Unit of storage, in voxels along the stored axes."""
        return self.array.shards or self.array.chunks

    def covering(self, box: Box) -> Box:
        """Numbers of the chunks that hold a box of voxels inside the volume."""
        chunk = self.layout.zyx(self.chunk)
        return Box(
            to_zyx(a // c for a, c in zip3(box.start, chunk)), to_zyx(-(-b // c) for b, c in zip3(box.stop, chunk))
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
        return str(self.array.metadata.encode_chunk_key(self.stored(number)))

    def naming(self) -> tuple[str, str] | None:
        """What stands before and between the numbers in a name; None for an encoding that is not known."""
        probe = self.array.metadata.encode_chunk_key(tuple(range(1, len(self.layout.shape) + 1)))
        match = _PROBE.fullmatch(probe)
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
        fill = self.array.fill_value
        if fill is None:  # then any value may be read
            return np.ones(voxels.shape, bool)
        same: NDArray[np.bool_] = (voxels == fill) | ((voxels != voxels) & bool(fill != fill))
        return same

    def rows(self, span: Box) -> Iterator[tuple[int, ...]]:
        """The numbers of a box of chunks along all stored axes but the last."""
        start, stop = self.stored(span.start), self.stored(to_zyx(n - 1 for n in span.stop))
        return product(*[range(a, b + 1) for a, b in zip(start, stop, strict=True)][:-1])


def lacks(store: LocalStore, key: str) -> bool:
    """Whether a folder does not hold a key.

    Raises:
        OSError: that cannot be told.
    """
    try:
        (store.root / key).stat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    return False
