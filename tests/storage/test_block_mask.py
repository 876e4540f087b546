"""A mask contains a block if it contains one of its voxels, however little of it is read at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from volseg.blocks import BlockGrid, Box
from volseg.errors import ConfigError, GridError
from volseg.ops import read_reflected
from volseg.storage import BlockMask, open_mask

if TYPE_CHECKING:
    from pathlib import Path


class RecordingMask:
    """A mask in memory that records the boxes read."""

    def __init__(self, voxels: np.ndarray, chunk: tuple[int, int, int] = (1, 1, 1)) -> None:
        self.voxels, self.chunk, self.location = voxels, chunk, "mask"
        self.shape, self.dtype = voxels.shape, voxels.dtype.name
        self.reads: list[Box] = []

    def read(self, box: Box) -> np.ndarray:
        self.reads.append(box)
        return read_reflected(self.voxels, box.start, box.stop)


@st.composite
def masked_grids(draw: st.DrawFn) -> tuple[BlockGrid, np.ndarray, tuple[int, ...]]:
    """A grid, a mask of few voxels, and its downsampling factors, which its shape determines uniquely."""
    factors = draw(st.tuples(*[st.integers(1, 3)] * 3))
    shape = tuple(f * f * 4 + draw(st.integers(0, 9)) for f in factors)
    shard = draw(st.tuples(*[st.integers(1, 5)] * 3))
    block = tuple(s * draw(st.integers(1, 2)) for s in shard)
    start = tuple(draw(st.integers(0, n - 1)) for n in shape)
    stop = tuple(draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True))
    mask = np.zeros([-(-n // f) for n, f in zip(shape, factors, strict=True)], np.uint8)
    for _ in range(draw(st.integers(0, 4))):
        mask[tuple(draw(st.integers(0, n - 1)) for n in mask.shape)] = 255
    return BlockGrid.over(shape, block, shard, Box(start, stop)), mask, factors


@settings(max_examples=60)
@given(masked_grids(), st.integers(1, 400), st.tuples(*[st.integers(1, 9)] * 3), st.booleans())
def test_a_block_is_in_the_mask_if_one_of_its_voxels_is(
    masked: tuple[BlockGrid, np.ndarray, tuple[int, ...]], max_bytes: int, chunk: tuple[int, int, int], backwards: bool
) -> None:
    grid, coarse, factors = masked
    fine = coarse.repeat(factors[0], 0).repeat(factors[1], 1).repeat(factors[2], 2)
    expected = {number for number in grid.numbers() if fine[grid.box(number).slices].any()}
    volume: Any = RecordingMask(coarse, chunk)
    mask = BlockMask(volume, grid, max_bytes=max_bytes)
    numbers = list(grid.numbers())
    assert {number for number in (reversed(numbers) if backwards else numbers) if number in mask} == expected
    assert mask.count == len(expected)
    largest = max(
        int(np.prod([-(-b // f) + 1 for b, f in zip(grid.block, factors, strict=True)])),
        max_bytes,
    )
    assert all(box.voxels <= largest for box in volume.reads)


def test_a_mask_is_read_once_while_its_blocks_are_queried() -> None:
    volume: Any = RecordingMask(np.ones((64, 32, 32), np.uint8), chunk=(8, 16, 16))
    mask = BlockMask(volume, BlockGrid.over((64, 256, 256), (4, 64, 64), (4, 64, 64)))
    assert not volume.reads
    assert 0 in mask
    assert volume.reads == [Box((0, 0, 0), (8, 32, 32))]
    assert all(number in mask for number in range(2 * 16 + 1))
    assert volume.reads[1:] == [Box((8, 0, 0), (16, 32, 32))]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "uint64", "int16", "float32"])
def test_any_zarr_that_is_not_zero_somewhere_is_a_mask(tmp_path: Path, dtype: str) -> None:
    array = zarr.create_array(tmp_path / "m.zarr", shape=(1, 4, 8, 8), chunks=(1, 4, 4, 4), dtype=dtype)
    grid = BlockGrid.over((4, 64, 64), (2, 32, 32), (2, 32, 32))
    with pytest.raises(ConfigError, match=r"m.zarr is zero everywhere in 0:4,0:64,0:64, .*not inverted"):
        open_mask(str(tmp_path / "m.zarr"), grid)
    array[0, 3, 7, 0] = 1
    mask = open_mask(str(tmp_path / "m.zarr"), grid)
    assert [number for number in grid.numbers() if number in mask] == [6]
    assert (mask.entry.shape, mask.entry.blocks, len(mask.entry.identity)) == ((4, 8, 8), 1, 32)


def test_a_mask_of_another_volume_is_refused_with_both_shapes(tmp_path: Path) -> None:
    zarr.create_array(tmp_path / "m.zarr", shape=(4, 30, 64), chunks=(4, 30, 64), dtype="uint8")
    grid = BlockGrid.over((4, 64, 64), (2, 32, 32), (2, 32, 32))
    with pytest.raises(GridError, match=r"m.zarr does not fit.*\(4, 30, 64\) is not \(4, 64, 64\).*coarser one"):
        open_mask(str(tmp_path / "m.zarr"), grid)
