"""The plan of a run: everything that can be decided, and refused, before a worker starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, Literal

from volseg.blocks import BlockGrid, Box, Tiling, Zyx, ceil_to
from volseg.blocks.box import zip3
from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.blocks import Footprint

_BLOCK_YX = 1024
_BLOCK_Z = 16
_CHUNK_VOXELS = 1 << 18


@dataclass(frozen=True, slots=True)
class Request:
    """What the user asked for; None where the plan decides.

    Attributes:
        block: what one task writes.
        shard: the target's unit of storage.
        chunk: what readers of the target decode at once.
        halo: context around a block, or `exact`; for all networks of the run.
        halos: that of each network, where a run goes on whose halos were chosen; before `halo`.
        region: what to do of the volume.
        tile: the core of what one forward pass sees.
    """

    block: Zyx | None = None
    shard: Zyx | None = None
    chunk: Zyx | None = None
    halo: Zyx | Literal["exact"] = "exact"
    halos: tuple[Zyx, ...] | None = None
    region: Box | None = None
    tile: Zyx | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """A run that fits together.

    Attributes:
        grid: its blocks.
        shard: the target's unit of storage.
        chunk: the target's inner chunk.
        footprints: the networks'.
        halos: context around a block, for each network.
        warnings: what the user should know, a line each.
        tile: the core of a tile, where it was asked for.
    """

    grid: BlockGrid
    shard: Zyx
    chunk: Zyx
    footprints: tuple[Footprint, ...]
    halos: tuple[Zyx, ...]
    warnings: tuple[str, ...]
    tile: Zyx | None = None

    @property
    def halo(self) -> Zyx:
        """What is read around a block: the widest of the networks' halos."""
        z, y, x = (max(sides) for sides in zip(*self.halos, strict=True))
        return z, y, x

    def with_halos(self, halos: tuple[Zyx, ...]) -> Plan:
        """The same blocks with other halos, one for each network."""
        return replace(self, halos=halos)

    def tilings(self, member: int = 0) -> Iterator[Tiling]:
        """Ways to cut a block into tiles, from the one with the least halo computed twice to the smallest tile."""
        footprint = self.footprints[member]
        if self.tile is not None:
            yield Tiling(footprint, self.tile, self.halos[member])
            return
        sz, sy, sx = footprint.stride
        # No wider than what there is to write: the rest of a block beyond the volume is never computed.
        bz, by, bx = (min(b, n) for b, n in zip3(self.grid.block, self.grid.region.shape))
        # A 2-D network takes sections one by one: a batch is many of them, a tile is one.
        depths = {1} if footprint.dimensions == 2 else {ceil_to(-(-bz // parts), sz) for parts in _parts(bz, sz)}
        cores = {
            (depth, ceil_to(-(-by // parts), sy), ceil_to(-(-bx // parts), sx))
            for depth in depths
            for parts in range(1, max(-(-by // sy), -(-bx // sx)) + 1)
        }
        tilings = [Tiling(footprint, core, self.halos[member]) for core in cores]
        yield from sorted(tilings, key=lambda tiling: (tiling.overhead, tiling.core))


def _refuse_tile(core: Zyx, footprints: Sequence[Footprint]) -> None:
    """Refuse a tile that is off a network's stride, or has several sections for one that takes one at a time."""
    z, y, x = (ceil_to(c, s) for c, s in zip3(core, _common_stride(footprints)))
    flat = any(footprint.dimensions == 2 for footprint in footprints)
    fitting = (1 if flat else z, y, x)
    if core != fitting:
        raise GridError(
            f"tile {core} does not suit the network, whose stride is {_common_stride(footprints)}"
            f"{' and which takes sections one by one' if flat else ''}; use --tile {','.join(map(str, fitting))}"
        )


def _parts(length: int, stride: int) -> range:
    """Into how many parts a length may be cut along an axis with a stride."""
    return range(1, -(-length // stride) + 1)


def plan_run(shape: Zyx, chunk: Zyx, footprints: tuple[Footprint, ...], request: Request) -> Plan:
    """Fit blocks, halo, shards and region together.

    Args:
        shape: the source, in voxels.
        chunk: what is decoded at once when the source is read.
        footprints: those of the networks whose estimates are averaged; mostly of one.
        request: what the user asked for.

    Raises:
        GridError: sizes that do not fit; the message says which would.
    """
    if request.tile is not None:
        _refuse_tile(request.tile, footprints)
    block = _block(shape, chunk, footprints, request)
    shard = request.shard or block
    grid = BlockGrid.over(shape, block, shard, request.region)
    halos = request.halos or _halos(footprints, request.halo)
    warnings = [
        f"halo {halo} is below the {each.exact_halo()} that this network needs to leave no seam: blocks may "
        "differ at their borders; use --halo exact to be sure"
        for each, halo in zip(footprints, halos, strict=True)
        if request.halos is None and each.sees_beyond(halo)
    ]
    if request.region is not None and grid.region != request.region:
        warnings.append(f"region {request.region} grows to {grid.region}: blocks write whole shards of {shard}")
    return Plan(grid, shard, _inner_chunk(shard, request.chunk), footprints, halos, tuple(warnings), request.tile)


def _halos(footprints: tuple[Footprint, ...], halo: Zyx | Literal["exact"]) -> tuple[Zyx, ...]:
    if halo == "exact":
        return tuple(each.exact_halo() for each in footprints)
    try:
        return tuple(each.checked_halo(halo) for each in footprints)
    except GridError as error:
        if len(footprints) == 1:
            raise
        raise GridError(f"{error}; where models differ so, --halo auto or exact gives each its own") from None


def _common_stride(footprints: Sequence[Footprint]) -> Zyx:
    """The stride on which the pooling grids of all networks meet."""
    z, y, x = (lcm(*steps) for steps in zip(*(each.stride for each in footprints), strict=True))
    return z, y, x


def _block(shape: Zyx, chunk: Zyx, footprints: tuple[Footprint, ...], request: Request) -> Zyx:
    stride = _common_stride(footprints)
    if request.block is None:
        # Where a network looks along z, a block is at least as deep as what is computed twice above and below it.
        around = max(2 * each.exact_halo()[0] for each in footprints)
        return _default_block(shape, chunk, stride, request.shard, max(_BLOCK_Z, around))
    if min(request.block) < 1:
        raise GridError(f"block {request.block} needs at least one voxel along each axis")
    if any(b % s for b, s in zip3(request.block, stride)):
        nearest = ",".join(str(ceil_to(b, s)) for b, s in zip3(request.block, stride))
        raise GridError(
            f"block {request.block} is off the network's stride {stride}, so that blocks would pool on shifted grids; "
            f"use --block {nearest}"
        )
    return request.block


def _default_block(shape: Zyx, chunk: Zyx, stride: Zyx, shard: Zyx | None, deep: int) -> Zyx:
    """Slabs of whole source chunks along z; wide along y and x, where the halo would else be computed twice."""
    depth = chunk[0] * max(1, deep // chunk[0]) if chunk[0] <= 2 * deep else deep
    # Blocks of one size: a narrow last one would cost as much as a wide one, for tiles have one shape.
    even = tuple(-(-n // -(-n // _BLOCK_YX)) for n in shape[1:])
    wanted = (min(depth, shape[0]), *even)
    steps = zip3(stride, shard or (1, 1, 1))
    z, y, x = (ceil_to(w, lcm(max(s, 1), max(k, 1))) for w, (s, k) in zip(wanted, steps, strict=True))
    return z, y, x


def _inner_chunk(shard: Zyx, asked: Zyx | None) -> Zyx:
    """About 2^18 voxels that divide the shard: what Neuroglancer fetches at once.

    Raises:
        GridError: a chunk that does not divide the shard.
    """
    if asked is not None:
        if min(asked) < 1 or any(s % c for s, c in zip3(shard, asked)):
            raise GridError(f"chunk {asked} does not divide the shard {shard}; choose one that does along each axis")
        return asked
    z = _divisor(shard[0], 64)
    side = 64
    while z * (2 * side) ** 2 <= _CHUNK_VOXELS:
        side *= 2
    return z, _divisor(shard[1], side), _divisor(shard[2], side)


def _divisor(length: int, most: int) -> int:
    """The largest divisor up to `most`; the length itself where only slivers would divide it."""
    best = max(d for d in range(1, min(length, most) + 1) if length % d == 0)
    return best if best >= min(length, most) // 4 else length
