"""The volumes of a target at all levels, and how a block of a coarser level is made of the finer one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.blocks import Box, PyramidGrid, coarser_box, to_zyx
from volseg.storage.marks import digest_of, joint_digest
from volseg.storage.object_target import open_target
from volseg.storage.paths import UNCERTAINTY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.storage.object_path import TargetPath
    from volseg.storage.run_record import RunRecord
    from volseg.storage.target import Target


@dataclass(frozen=True)
class Pyramid:
    """The volumes of a run.

    Attributes:
        grid: the blocks of all levels.
        layers: for each grid of `grid.grids` the volumes that its blocks write: the map, and the standard deviation if
            it is written. Those of level 0 write level 1, too.
    """

    grid: PyramidGrid
    layers: tuple[tuple[Target, ...], ...]

    @property
    def finest(self) -> tuple[Target, ...]:
        """The volumes of level 0."""
        return self.layers[0]

    @property
    def targets(self) -> Iterator[Target]:
        """The volumes of all levels."""
        return (part for layer in self.layers for target in layer for part in target.parts)

    def targets_of(self, number: int) -> tuple[tuple[Target, ...], Box]:
        """The volumes that a block writes, and its box in them."""
        return self.layers[self.grid.grid_of(number)], self.grid.locate(number)[1]

    def shard_folders(self, number: int) -> set[TargetPath]:
        """Folders of the shards of a block."""
        targets, box = self.targets_of(number)
        return {folder for target in targets for folder in target.shard_folders(box)}

    def stored(self, number: int) -> int:
        """Bytes that the shards of a block take; 0 if some are missing."""
        targets, box = self.targets_of(number)
        try:
            return sum(file.stat().st_size for target in targets for file in target.shard_files(box))
        except (FileNotFoundError, NotADirectoryError):
            return 0

    def is_as_marked(self, number: int, digest: bytes) -> bool:
        """Whether the shards of a block have the digest of its mark."""
        targets, box = self.targets_of(number)
        try:
            digests = [digest_of(file.read_bytes()) for target in targets for file in target.shard_files(box)]
        except (FileNotFoundError, NotADirectoryError):
            return False
        return bytes.fromhex(joint_digest(digests)) == digest

    def downsample(self, number: int) -> list[NDArray[Any]]:
        """Make a block of a coarser level of the finer one; (classes, z, y, x) of each volume.

        One shard at a time, so that memory does not grow with the block.
        """
        level, box = self.grid.locate(number)
        at = self.grid.grid_of(number)
        scale, shard = self.grid.levels[level - 1], self.layers[at][0].shard
        volumes = []
        for finer in self.layers[at - 1]:
            source = finer.parts[-1]
            shape = (max(source.channels, 1), *box.shape)
            result: NDArray[Any] = np.empty(shape, source.form["type"])
            for part in _shards(box, shard):
                voxels = source.read(scale.finer_box(part, self.grid.levels[level - 2].shape))
                voxels = source.downsample(voxels.reshape(-1, *voxels.shape[-3:]), scale.factor)
                result[:, *part.relative_to(box.start).slices] = voxels
            volumes.append(result)
        return volumes


@dataclass(frozen=True)
class CoarserPyramid(Pyramid):
    """The coarser levels of a volume that another program may have written: blocks of level 0 write level 1 alone."""

    def targets_of(self, number: int) -> tuple[tuple[Target, ...], Box]:
        """The volumes that a block writes, and its box in them."""
        targets, box = super().targets_of(number)
        return targets, coarser_box(box, self.grid.levels[0].factor) if number < self.grid.base.count else box


def _shards(box: Box, shard: tuple[int, int, int]) -> Iterator[Box]:
    """Boxes of the shards of a box of whole shards."""
    for start in product(*(range(a, b, s) for a, b, s in zip(box.start, box.stop, shard, strict=True))):
        first = to_zyx(start)
        yield Box(first, first).grow((0, 0, 0), shard).intersection(box)


def volume_names(record: RunRecord) -> tuple[str, ...]:
    """Paths of a run's volumes in its target: the map's, and that of the standard deviation."""
    return ("", UNCERTAINTY) if record.settings.uncertainty else ("",)


def pyramid_of(grid: PyramidGrid, names: Sequence[str], opened: Callable[[str, str], Target]) -> Pyramid:
    """The volumes of a run or a conversion.

    Args:
        grid: the blocks.
        names: of the volumes.
        opened: opens a level by the name of the volume and that of the level.
    """
    layers = [tuple(opened(name, "0") for name in names)]
    if grid.levels:
        halves = [opened(name, "1") for name in names]
        factor = grid.levels[0].factor
        layers[0] = tuple(
            replace(finest, coarser=half, factor=factor) for finest, half in zip(layers[0], halves, strict=True)
        )
    layers += [tuple(opened(name, str(level)) for name in names) for level in range(2, len(grid.levels) + 1)]
    return Pyramid(grid, tuple(layers))


def open_pyramid(path: TargetPath, record: RunRecord) -> Pyramid:
    """Open the volumes of a target to write more blocks.

    Raises:
        TargetError: there is no target.
    """
    return pyramid_of(record.pyramid, volume_names(record), lambda name, level: open_target(path / name, level))
