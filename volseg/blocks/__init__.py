"""Integer geometry: boxes, grids, halos and tiles. No arrays, no files, no dependencies."""

from volseg.blocks.align import ceil_to, floor_to
from volseg.blocks.blockset import BlockSet
from volseg.blocks.box import Box, Zyx, ZyxFloat
from volseg.blocks.footprint import Footprint
from volseg.blocks.grid import BlockGrid
from volseg.blocks.mirror import mirror_index, mirror_span
from volseg.blocks.text import parse_roi, parse_zyx
from volseg.blocks.tiling import Tiling

__all__ = [
    "BlockGrid",
    "BlockSet",
    "Box",
    "Footprint",
    "Tiling",
    "Zyx",
    "ZyxFloat",
    "ceil_to",
    "floor_to",
    "mirror_index",
    "mirror_span",
    "parse_roi",
    "parse_zyx",
]
