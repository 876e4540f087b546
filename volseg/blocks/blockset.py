"""A compact set of block numbers: one bit per block, in pages allocated on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

_PAGE_BITS = 1 << 16
_FULL = b"\xff" * (_PAGE_BITS // 8)


class BlockSet:
    """Block numbers, such as those that are done; a million of them take 125 kB.

    >>> done = BlockSet([3, 70_000])
    >>> 3 in done, 4 in done, len(done)
    (True, False, 2)
    """

    def __init__(self, numbers: Iterable[int] = ()) -> None:
        self._pages: dict[int, bytearray] = {}
        self._count = 0
        for number in numbers:
            self.add(number)

    @classmethod
    def from_bits(cls, bits: bytes, first: int = 0) -> Self:
        """The set of a bitmap.

        Args:
            bits: a bit for each number, the lowest of a byte first.
            first: number of the first bit, a multiple of 8.

        >>> list(BlockSet.from_bits(bytes([0, 3]), first=16))
        [24, 25]
        """
        found, size = cls(), _PAGE_BITS // 8
        begin, stop = first // 8, first // 8 + len(bits)
        for page in range(begin // size, -(-stop // size)):
            low, high = max(begin, page * size), min(stop, (page + 1) * size)
            part = bits[low - begin : high - begin]
            if count := int.from_bytes(part, "little").bit_count():
                found._pages[page] = bytearray(part.rjust(high - page * size, b"\0").ljust(size, b"\0"))
                found._count += count
        return found

    @classmethod
    def from_flags(cls, flags: NDArray[np.bool_], first: int = 0) -> Self:
        """The numbers from `first` on whose flag is true.

        >>> list(BlockSet.from_flags(np.bool_([0, 1, 1]), first=6))
        [7, 8]
        """
        before = np.zeros(first % 8, bool)
        return cls.from_bits(
            np.packbits(np.concatenate([before, flags]), bitorder="little").tobytes(), first - len(before)
        )

    def to_flags(self, start: int, stop: int) -> NDArray[np.bool_]:
        """Whether each number from `start` to `stop` is in the set.

        >>> BlockSet([3, 9]).to_flags(3, 10).tolist()
        [True, False, False, False, False, False, True]
        """
        first = start // 8 * 8
        bits = np.unpackbits(np.frombuffer(self.to_bits(first, stop), np.uint8), bitorder="little")
        return bits[start - first : stop - first].view(bool)

    def to_bits(self, start: int, stop: int) -> bytes:
        """A bitmap of the numbers from `start`, a multiple of 8, to `stop`; the lowest of a byte first.

        >>> BlockSet([0, 9, 10]).to_bits(0, 10), BlockSet([70_000]).to_bits(70_000, 70_001)
        (b'\\x01\\x02', b'\\x01')
        """
        none, pages = bytes(_PAGE_BITS // 8), range(start // _PAGE_BITS, -(-stop // _PAGE_BITS))
        bits = bytearray().join(self._pages.get(page, none) for page in pages)
        bits = bits[start % _PAGE_BITS // 8 :][: -(-(stop - start) // 8)]
        if stop % 8:
            bits[-1] &= (1 << stop % 8) - 1
        return bytes(bits)

    def missing(self, stop: int) -> Iterator[int]:
        """Iterate over the numbers below `stop` that are not in the set, in order.

        >>> list(BlockSet([0, 1, 3, 70_000]).missing(6))
        [2, 4, 5]
        """
        for first in range(0, stop, _PAGE_BITS):
            bits, last = self._pages.get(first // _PAGE_BITS), min(stop, first + _PAGE_BITS)
            if bits is None:
                yield from range(first, last)
            elif bits != _FULL:
                for start in range(first, last, 8):
                    byte = bits[(start - first) >> 3]
                    if byte != 255:
                        yield from (n for n in range(start, min(start + 8, last)) if not byte >> (n & 7) & 1)

    def add(self, number: int) -> None:
        """Add a number; a number that is already in the set changes nothing."""
        page, bit = divmod(number, _PAGE_BITS)
        bits = self._pages.get(page)
        if bits is None:
            bits = self._pages[page] = bytearray(_PAGE_BITS // 8)
        mask = 1 << (bit & 7)
        if not bits[bit >> 3] & mask:
            bits[bit >> 3] |= mask
            self._count += 1

    def discard(self, number: int) -> None:
        """Remove a number; one that is not in the set changes nothing.

        >>> done = BlockSet([3, 4])
        >>> done.discard(3), done.discard(9), 3 in done, len(done)
        (None, None, False, 1)
        """
        if number in self:
            page, bit = divmod(number, _PAGE_BITS)
            self._pages[page][bit >> 3] &= ~(1 << (bit & 7))
            self._count -= 1

    def update(self, other: BlockSet) -> None:
        """Add the numbers of another set."""
        self._combine(other, lambda own, others: own | others)

    def difference_update(self, other: BlockSet) -> None:
        """Remove the numbers of another set."""
        self._combine(other, lambda own, others: own & ~others)

    def _combine(self, other: BlockSet, combine: Callable[[int, int], int]) -> None:
        for page, bits in other._pages.items():
            own = int.from_bytes(self._pages.get(page, b""), "little")
            both = combine(own, int.from_bytes(bits, "little"))
            self._pages[page] = bytearray(both.to_bytes(_PAGE_BITS // 8, "little"))
            self._count += both.bit_count() - own.bit_count()

    def overlap(self, other: BlockSet) -> int:
        """How many numbers are in both sets.

        >>> a, b = BlockSet([1, 2, 70_000]), BlockSet([2, 3, 70_000])
        >>> a.update(b), a.overlap(b), a.difference_update(BlockSet([1])), list(a)
        (None, 3, None, [2, 3, 70000])
        """
        pages = self._pages.keys() & other._pages.keys()
        ints = ((int.from_bytes(blocks._pages[page], "little") for blocks in (self, other)) for page in pages)
        return sum((a & b).bit_count() for a, b in ints)

    def __contains__(self, number: int) -> bool:
        page, bit = divmod(number, _PAGE_BITS)
        bits = self._pages.get(page)
        return bits is not None and bool(bits[bit >> 3] & (1 << (bit & 7)))

    def __iter__(self) -> Iterator[int]:
        """Iterate over the numbers, in order.

        >>> list(BlockSet([70_000, 3, 4]))
        [3, 4, 70000]
        """
        for page in sorted(self._pages):
            for at, byte in enumerate(self._pages[page]):
                if byte:
                    yield from (page * _PAGE_BITS + 8 * at + bit for bit in range(8) if byte >> bit & 1)

    def __len__(self) -> int:
        return self._count
