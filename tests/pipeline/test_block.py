"""The way of one block, with test doubles for source, network and sink."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from volseg.blocks import BlockGrid, Box, Tiling
from volseg.errors import BlockError
from volseg.ops import Grey, read_reflected
from volseg.pipeline import BlockPipeline, EnsembleMember, Estimate, process_block
from volseg.testing.doubles import FOOTPRINT, IdentityPredictor
from volseg.testing.factories import blobs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Memory:
    """A volume in memory, as source and as sink; it records the order of calls."""

    def __init__(self, raw: np.ndarray) -> None:
        self.raw = raw
        self.out = np.zeros(raw.shape, np.uint8)
        self.calls: list[str] = []
        self.with_std: np.ndarray | None = None

    def read(self, box: Box) -> np.ndarray:
        self.calls.append("read")
        return read_reflected(self.raw, box.start, box.stop)

    def write(self, box: Box, volumes: Sequence[np.ndarray]) -> tuple[str, int, str]:
        self.calls.append("write")
        self.out[box.slices] = volumes[0][0]
        self.with_std = volumes[1][0] if len(volumes) > 1 else None
        return "digest", 7, "files"

    def clear(self, box: Box) -> None:
        self.calls.append("clear")
        self.out[box.slices] = 0


def pipeline_over(memory: Memory, block=(2, 16, 16)) -> BlockPipeline:
    tiling = Tiling(FOOTPRINT, (1, *block[1:]), (0, 3, 3))
    grid = BlockGrid.over(memory.raw.shape, block, block)
    return BlockPipeline(grid, (EnsembleMember(tiling, ((0.0, 255.0),), IdentityPredictor(tiling)),), memory, memory)


def test_the_identity_network_copies_the_volume() -> None:
    memory = Memory(blobs((5, 37, 41)))
    pipeline = pipeline_over(memory)
    reports = [process_block(number, pipeline) for number in pipeline.grid.numbers()]
    np.testing.assert_array_equal(memory.out, memory.raw)
    assert sum(report.voxels for report in reports) == memory.raw.size
    assert [report.number for report in reports] == list(range(pipeline.grid.count))
    assert memory.calls[:2] == ["read", "write"]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_where_there_is_no_data_the_input_is_0_and_so_is_the_map(bad: float) -> None:
    memory = Memory(blobs((2, 64, 64), dtype="float32"))
    memory.raw[1, 60, :] = bad
    pipeline = pipeline_over(memory)
    grey: list[Grey] = []

    def record(given: Grey, write_box: Box) -> Iterator[Estimate]:
        grey.append(given)
        yield Estimate(np.ones((1, *write_box.shape), np.float32), 0.0)

    pipeline = replace(pipeline, members=(replace(pipeline.members[0], predict=record),))
    box = pipeline.grid.box(12)
    process_block(12, pipeline)
    assert np.isfinite(grey[0].raw).all()
    assert (memory.out[box.slices] == 255 * np.isfinite(memory.raw[box.slices])).all()
    assert not memory.out[box.slices].all()


def test_a_section_without_tissue_is_0_in_the_map_and_the_others_are_as_without_it() -> None:
    memory = Memory(blobs((2, 16, 16)))
    statistics = ((0.0, 255.0), (7.0, np.inf))
    pipeline = pipeline_over(memory)
    process_block(0, pipeline)
    before = memory.out.copy()
    process_block(0, replace(pipeline, members=(replace(pipeline.members[0], statistics=statistics),)))
    assert before[1].any()
    assert not memory.out[1].any()
    np.testing.assert_array_equal(memory.out[0], before[0])


def test_a_volume_of_nan_is_empty() -> None:
    memory = Memory(np.full((2, 16, 16), np.nan, np.float32))
    assert process_block(0, pipeline_over(memory)).skipped == "empty"


@pytest.mark.parametrize("value", [0, 255])
def test_an_empty_block_is_read_and_not_predicted_and_its_shard_is_cleared(value: int) -> None:
    memory = Memory(np.full((2, 16, 32), value, np.uint8))
    memory.out[:] = 9
    pipeline = pipeline_over(memory)

    def never(grey: Grey, write_box: Box) -> Iterator[Estimate]:
        raise AssertionError("an empty block was predicted")

    pipeline = replace(pipeline, members=(replace(pipeline.members[0], predict=never),))
    done = process_block(1, pipeline)
    assert (done.skipped, done.voxels, done.digest) == ("empty", 0, "")
    assert memory.calls == ["read", "clear"]
    assert not memory.out[:, :, 16:].any()
    assert (memory.out[:, :, :16] == 9).all()


@pytest.mark.parametrize(("at", "computed"), [(0, {0}), (17, {0, 1}), (28, {1}), (29, {1, 2}), (47, {2})])
def test_one_voxel_of_contrast_in_the_read_box_is_enough(at: int, computed: set[int]) -> None:
    """Blocks of 16 voxels along x, with a halo of 3."""
    memory = Memory(np.full((2, 16, 48), 7, np.uint8))
    memory.raw[1, 15, at] = 8
    pipeline = pipeline_over(memory)
    assert {number for number in range(3) if not process_block(number, pipeline).skipped} == computed


def test_a_non_finite_output_fails_its_block() -> None:
    memory = Memory(blobs((2, 16, 16)))
    pipeline = pipeline_over(memory)

    def broken(grey: Grey, write_box: Box) -> Iterator[Estimate]:
        yield Estimate(np.full((1, *write_box.shape), np.nan, np.float32), 0.0)

    with pytest.raises(BlockError, match="the network's output is not finite; its grey values lie"):
        process_block(0, replace(pipeline, members=(replace(pipeline.members[0], predict=broken),)))
    assert memory.calls == ["read"]


def test_several_networks_are_averaged_each_with_its_own_constants_and_halo() -> None:
    memory = Memory(np.full((2, 16, 16), 200, np.uint8))
    memory.raw[0, 0, 0] = 0
    grid = BlockGrid.over(memory.raw.shape, (2, 16, 16), (2, 16, 16))
    near, far = (Tiling(FOOTPRINT, (1, 16, 16), (0, halo, halo)) for halo in (1, 5))
    members = (
        EnsembleMember(near, ((0.0, 255.0),), IdentityPredictor(near)),
        EnsembleMember(far, ((0.0, 510.0),), IdentityPredictor(far)),
    )
    pipeline = BlockPipeline(grid, members, memory, memory, with_std=True)
    assert pipeline.read_box(grid.box(0)) == far.read_box(grid.box(0))
    process_block(0, pipeline)
    bright = memory.raw == 200
    assert (memory.out[bright] == 150).all()
    assert memory.with_std is not None
    assert (memory.with_std[bright] == 50).all()
