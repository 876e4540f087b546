"""One block's journey, with test doubles for source, network and sink."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from volseg.blocks import BlockGrid, Box, Tiling
from volseg.errors import BlockError
from volseg.ops import Grey, read_reflected
from volseg.pipeline import BlockPipeline, EnsembleMember, process_block
from volseg.testing.doubles import FOOTPRINT, Identity
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Memory:
    """A volume in memory, as source and as sink; it keeps the order of what is done to it."""

    def __init__(self, raw: np.ndarray) -> None:
        self.raw = raw
        self.out = np.zeros(raw.shape, np.uint8)
        self.calls: list[str] = []
        self.with_std: np.ndarray | None = None

    def read(self, box: Box) -> np.ndarray:
        self.calls.append("read")
        return read_reflected(self.raw, box.start, box.stop)

    def write(self, box: Box, volumes: Sequence[np.ndarray]) -> str:
        self.calls.append("write")
        self.out[box.slices] = volumes[0][0]
        self.with_std = volumes[1][0] if len(volumes) > 1 else None
        return "digest"

    def clear(self, box: Box) -> None:
        self.calls.append("clear")
        self.out[box.slices] = 0


def journey(memory: Memory, block=(2, 16, 16)) -> BlockPipeline:
    tiling = Tiling(FOOTPRINT, (1, *block[1:]), (0, 3, 3))
    grid = BlockGrid.over(memory.raw.shape, block, block)
    return BlockPipeline(grid, (EnsembleMember(tiling, ((0.0, 255.0),), Identity(tiling)),), memory, memory)


def test_the_identity_network_copies_the_volume() -> None:
    memory = Memory(blobs((5, 37, 41)))
    trip = journey(memory)
    reports = [process_block(number, trip) for number in trip.grid.numbers()]
    np.testing.assert_array_equal(memory.out, memory.raw)
    assert sum(report.voxels for report in reports) == memory.raw.size
    assert [report.number for report in reports] == list(range(trip.grid.count))
    assert memory.calls[:2] == ["read", "write"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_voxel_that_is_no_number_fails_its_block_and_is_named(bad: float) -> None:
    memory = Memory(blobs((2, 64, 64), dtype="float32"))
    memory.raw[1, 60, 5] = bad
    trip = journey(memory)
    with pytest.raises(BlockError, match=r"block 12: the source holds NaN or infinity, at \(1, 60, 5\) .*--roi"):
        process_block(12, trip)
    assert memory.calls == ["read"]
    process_block(0, trip)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_float_volume_that_is_all_no_number_is_refused_and_not_called_empty(bad: float) -> None:
    memory = Memory(np.full((2, 16, 16), bad, np.float32))
    with pytest.raises(BlockError, match="the source holds NaN or infinity"):
        process_block(0, journey(memory))


@pytest.mark.parametrize("value", [0, 255])
def test_a_block_of_one_grey_value_is_read_and_not_predicted_and_what_stood_there_goes(value: int) -> None:
    memory = Memory(np.full((2, 16, 32), value, np.uint8))
    memory.out[:] = 9
    trip = journey(memory)

    def never(grey: Grey, write_box: Box) -> Iterator[np.ndarray]:
        raise AssertionError("an empty block was predicted")

    trip = replace(trip, members=(replace(trip.members[0], predict=never),))
    done = process_block(1, trip)
    assert (done.skipped, done.voxels, done.digest) == ("empty", 0, "")
    assert memory.calls == ["read", "clear"]
    assert not memory.out[:, :, 16:].any()
    assert (memory.out[:, :, :16] == 9).all()


@pytest.mark.parametrize(("at", "computed"), [(0, {0}), (17, {0, 1}), (28, {1}), (29, {1, 2}), (47, {2})])
def test_one_voxel_anywhere_in_the_read_box_is_enough_to_be_computed(at: int, computed: set[int]) -> None:
    """Blocks of 16 voxels along x, with a halo of 3."""
    memory = Memory(np.full((2, 16, 48), 7, np.uint8))
    memory.raw[1, 15, at] = 8
    trip = journey(memory)
    assert {number for number in range(3) if not process_block(number, trip).skipped} == computed


def test_an_output_that_is_no_number_fails_its_block() -> None:
    memory = Memory(blobs((2, 16, 16)))
    trip = journey(memory)

    def broken(grey: Grey, write_box: Box) -> Iterator[np.ndarray]:
        yield np.full((1, *write_box.shape), np.nan, np.float32)

    with pytest.raises(BlockError, match="the network's output is not finite.*--precision float32"):
        process_block(0, replace(trip, members=(replace(trip.members[0], predict=broken),)))
    assert memory.calls == ["read"]


def test_several_networks_are_averaged_each_with_its_own_constants_and_halo() -> None:
    memory = Memory(np.full((2, 16, 16), 200, np.uint8))
    memory.raw[0, 0, 0] = 0
    grid = BlockGrid.over(memory.raw.shape, (2, 16, 16), (2, 16, 16))
    near, far = (Tiling(FOOTPRINT, (1, 16, 16), (0, halo, halo)) for halo in (1, 5))
    members = (
        EnsembleMember(near, ((0.0, 255.0),), Identity(near)),
        EnsembleMember(far, ((0.0, 510.0),), Identity(far)),
    )
    trip = BlockPipeline(grid, members, memory, memory, with_std=True)
    assert trip.read_box(grid.box(0)) == far.read_box(grid.box(0))
    process_block(0, trip)
    seen = memory.raw == 200
    assert (memory.out[seen] == 150).all()
    assert memory.with_std is not None
    assert (memory.with_std[seen] == 50).all()
