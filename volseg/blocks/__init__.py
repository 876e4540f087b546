"""Integer geometry: boxes, grids, halos and tiles. No arrays, no files, no dependencies."""

from volseg.blocks.blockset import BlockSet
from volseg.blocks.box import Box, Zyx, ZyxFloat, ceil_to, floor_to, to_zyx, zip3
from volseg.blocks.downsampling import LevelScale
from volseg.blocks.footprint import Footprint, common_stride
from volseg.blocks.grid import BlockGrid
from volseg.blocks.mirror import mirror_index, mirror_span
from volseg.blocks.parse import format_zyx, is_voxel_size, parse_roi, parse_zyx
from volseg.blocks.part import Part, parse_part
from volseg.blocks.pyramid import (
    MAX_LEVELS,
    Level,
    PyramidGrid,
    coarser_box,
    coarser_place,
    level_factors,
    pyramid_levels,
)
from volseg.blocks.read_amplification import boxes_along, count_chunk_decodes, read_amplification, union_read_box
from volseg.blocks.tiling import Tiling

__all__ = [
    "MAX_LEVELS",
    "BlockGrid",
    "BlockSet",
    "Box",
    "Footprint",
    "Level",
    "LevelScale",
    "Part",
    "PyramidGrid",
    "Tiling",
    "Zyx",
    "ZyxFloat",
    "boxes_along",
    "ceil_to",
    "coarser_box",
    "coarser_place",
    "common_stride",
    "count_chunk_decodes",
    "floor_to",
    "format_zyx",
    "is_voxel_size",
    "level_factors",
    "mirror_index",
    "mirror_span",
    "parse_part",
    "parse_roi",
    "parse_zyx",
    "pyramid_levels",
    "read_amplification",
    "to_zyx",
    "union_read_box",
    "zip3",
]
