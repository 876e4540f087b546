"""A marked block whose shards are missing or have another size is found, in any volume of a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from volseg.blocks import BlockGrid, Box, PyramidGrid
from volseg.storage import presence
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.storage.presence import ShardCheck
from volseg.storage.pyramid import Pyramid
from volseg.storage.size_table import NO_SHARDS, UNKNOWN_SIZE

if TYPE_CHECKING:
    from volseg.storage.target import Target

SHAPE, BLOCK, SHARD = (3, 40, 70), (2, 32, 64), (1, 16, 32)


def written(folder: Path, channels: tuple[str, ...], region: Box | None) -> tuple[list[Target], BlockGrid, np.ndarray]:
    """Two volumes whose blocks are written, and the bytes of each block."""
    targets = [
        create_volume(
            folder / name,
            shape=SHAPE,
            shard=SHARD,
            chunk=(1, 16, 16),
            dtype="uint8",
            place=Place.of_nm((1.0, 1.0, 1.0)),
            channels=names,
        )
        for name, names in (("map.zarr", channels), ("std.zarr", ()))
    ]
    grid, rng = BlockGrid.over(SHAPE, BLOCK, SHARD, region), np.random.default_rng(0)
    sizes = np.zeros(grid.count, np.int64)
    for number in grid.numbers():
        box = grid.box(number)
        for target in targets:
            leading = (target.channels,) if target.channels else ()
            sizes[number] += target.write(box, rng.integers(0, 255, (*leading, *box.shape), np.uint8))[1]
    return targets, grid, sizes


def lost(targets: list[Target], grid: BlockGrid, sizes: np.ndarray) -> list[int]:
    with ShardCheck(Pyramid(PyramidGrid(grid), (tuple(targets),)), sizes) as check:
        return check.lost()


@pytest.mark.parametrize("channels", [(), ("a", "b")])
@pytest.mark.parametrize("region", [None, Box((1, 20, 33), (3, 40, 70))])
def test_each_damaged_shard_is_traced_to_its_block(
    tmp_path: Path, channels: tuple[str, ...], region: Box | None
) -> None:
    targets, grid, sizes = written(tmp_path, channels, region)
    assert lost(targets, grid, sizes) == []
    shards = [
        shard for target in targets for shard in sorted(Path(str(target.folder), "c").rglob("*")) if shard.is_file()
    ]
    rng = np.random.default_rng(1)
    for shard in rng.choice(np.array(shards, object), 4, replace=False):
        z, y, x = (int(part) * s for part, s in zip(shard.parts[-3:], SHARD, strict=True))
        number, content = (
            grid.number((z, max(y, grid.region.start[1]), max(x, grid.region.start[2]))),
            shard.read_bytes(),
        )
        for damaged in (content[:-1], content + b"0", b""):
            shard.write_bytes(damaged)
            assert lost(targets, grid, sizes) == [number]
        shard.unlink()
        assert lost(targets, grid, sizes) == [number]
        unmarked, unknown = sizes.copy(), sizes.copy()
        unmarked[number], unknown[number] = NO_SHARDS, UNKNOWN_SIZE
        assert lost(targets, grid, unmarked) == []
        assert lost(targets, grid, unknown) == [number]
        shard.write_bytes(content)
        assert lost(targets, grid, unknown) == []


def test_a_folder_that_is_gone_loses_its_blocks(tmp_path: Path) -> None:
    targets, grid, sizes = written(tmp_path, (), None)
    Path(str(targets[0].folder), "c").rename(tmp_path / "c")
    assert lost(targets, grid, sizes) == list(grid.numbers())


def test_a_shard_that_goes_while_its_folder_is_listed_hides_no_other(tmp_path: Path) -> None:
    (tmp_path / "0").symlink_to(tmp_path / "deleted after it was listed")
    (tmp_path / "1").write_bytes(b"shard")
    (tmp_path / "2").symlink_to(tmp_path / "another")
    assert presence._row_sizes(tmp_path, 0, 3).tolist() == [0, 5, 0]
