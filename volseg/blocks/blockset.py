"""A compact set of block numbers: one bit per block, in pages allocated on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_PAGE_BITS = 1 << 16


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
