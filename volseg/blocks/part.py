"""A part of a run: blocks that one of several drivers computes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from volseg.blocks.blockset import BlockSet
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg.blocks.pyramid import PyramidGrid

_FORM = re.compile(r"\s*(\d{1,9})\s*/\s*(\d{1,9})\s*")


@dataclass(frozen=True, slots=True)
class Part:
    """One of several parts of a run, counted from 1: consecutive blocks of level 0.

    >>> [list(Part(k, 3).numbers(7)) for k in (1, 2, 3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    """

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def numbers(self, blocks: int) -> range:
        """Numbers of its blocks of level 0.

        Args:
            blocks: of the run.
        """
        return range(blocks * (self.number - 1) // self.count, blocks * self.number // self.count)

    def planned(self, pyramid: PyramidGrid, planned: BlockSet | None) -> BlockSet:
        """Its blocks of all levels: those of coarser ones that are made of nothing but its own.

        Args:
            pyramid: the blocks of the run.
            planned: those of all levels that are not outside its mask; None for all.
        """
        own, count = self.numbers(pyramid.base.count), pyramid.base.count

        def within(start: int, stop: int) -> BlockSet:
            flags = np.ones(stop - start, bool) if planned is None else planned.to_flags(start, stop)
            return BlockSet.from_flags(flags, start)

        found, others = within(own.start, own.stop), within(0, own.start)
        others.update(within(own.stop, count))
        above = pyramid.above(found)
        above.difference_update(pyramid.above(others))
        found.update(above)
        return found


def parse_part(text: str) -> Part:
    """Parse K/N.

    Raises:
        ConfigError: it is not a part.

    >>> parse_part("2/8")
    Part(number=2, count=8)
    """
    match = _FORM.fullmatch(text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ConfigError(f"part {text!r} is not K/N with K from 1 to N, such as 2/8")
    return Part(int(match[1]), int(match[2]))
