"""The plan of a run: blocks, shards, chunks and halos that fit together, before a worker starts."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm
from typing import TYPE_CHECKING, Literal

from volseg.blocks import (
    BlockGrid,
    Box,
    Tiling,
    Zyx,
    ZyxFloat,
    ceil_to,
    common_stride,
    format_zyx,
    level_factors,
    to_zyx,
    zip3,
)
from volseg.errors import GridError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.blocks import Footprint
    from volseg.ops import OutputResampling

_BLOCK_YX = 1024
_BLOCK_Z = 16
_CHUNK_VOXELS = 1 << 18


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Sizes requested by the user, (z, y, x) in voxels; None for the default.

    Attributes:
        block: size of a write box.
        shard: the target's unit of storage.
        chunk: the target's unit of decoding.
        halo: context around a block, or `exact`; for all networks of the run.
        halos: halo of each network, in a resumed run; overrides `halo`.
        region: part of the volume to compute.
        tile: core of a tile.
        levels: number of coarser levels, or their factors in a resumed run.
        voxel_nm: voxel size of the map; None if unknown.
        output: from the networks' voxels to those of the map; None if they are the same.
    """

    block: Zyx | None = None
    shard: Zyx | None = None
    chunk: Zyx | None = None
    halo: Zyx | Literal["exact"] = "exact"
    halos: tuple[Zyx, ...] | None = None
    region: Box | None = None
    tile: Zyx | None = None
    levels: int | tuple[Zyx, ...] | None = None
    voxel_nm: ZyxFloat | None = None
    output: OutputResampling | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """The consistent sizes of a run.

    Attributes:
        grid: the blocks of the map.
        shard: the target's unit of storage.
        chunk: the target's inner chunk.
        footprints: footprint of each network.
        halos: context around a block, for each network.
        warnings: warnings for the user, a line each.
        tile: core of a tile, if it was requested.
        levels: factors of the coarser levels, each to the next finer one.
        output: from the networks' voxels to those of the map; None if they are the same.
    """

    grid: BlockGrid
    shard: Zyx
    chunk: Zyx
    footprints: tuple[Footprint, ...]
    halos: tuple[Zyx, ...]
    warnings: tuple[str, ...]
    tile: Zyx | None = None
    levels: tuple[Zyx, ...] = ()
    output: OutputResampling | None = None

    @property
    def network_grid(self) -> BlockGrid:
        """The blocks in the networks' voxels."""
        output = self.output
        return self.grid if output is None else output.network_grid(self.grid, common_stride(self.footprints))

    @property
    def halo(self) -> Zyx:
        """Context read around a block: the maximum of the networks' halos."""
        return to_zyx(map(max, zip(*self.halos, strict=True)))

    def with_halos(self, halos: tuple[Zyx, ...]) -> Plan:
        """Return the plan with other halos, one for each network."""
        return replace(self, halos=halos)

    def tilings(self, member: int = 0) -> Iterator[Tiling]:
        """Yield the ways to cut a block into tiles for a network, from the smallest overhead to the smallest tile."""
        footprint = self.footprints[member]
        if self.tile is not None:
            yield Tiling(footprint, self.tile, self.halos[member])
            return
        sz, sy, sx = footprint.stride
        # No wider than the region: the rest of a block beyond it is never computed.
        grid = self.network_grid
        bz, by, bx = (min(b, n) for b, n in zip3(grid.block, grid.region.shape))
        # A tile of a 2-D network is one section.
        depths = {1} if footprint.dimensions == 2 else {ceil_to(-(-bz // parts), sz) for parts in _parts(bz, sz)}
        cores = {
            (depth, ceil_to(-(-by // parts), sy), ceil_to(-(-bx // parts), sx))
            for depth in depths
            for parts in range(1, max(-(-by // sy), -(-bx // sx)) + 1)
        }
        tilings = [Tiling(footprint, core, self.halos[member]) for core in cores]
        yield from sorted(tilings, key=lambda tiling: (tiling.overhead, tiling.core))


def _refuse_tile(core: Zyx, footprints: Sequence[Footprint]) -> None:
    """Refuse a tile that is not a multiple of the stride, or has several sections for a 2-D network."""
    stride = common_stride(footprints)
    z, y, x = (ceil_to(c, s) for c, s in zip3(core, stride))
    is_2d = any(footprint.dimensions == 2 for footprint in footprints)
    valid = (1 if is_2d else z, y, x)
    if core != valid:
        raise GridError(
            f"tile {core} does not fit the network, whose stride is {stride}"
            f"{' and whose input is one section' if is_2d else ''}; use --tile {format_zyx(valid)}"
        )


def _parts(length: int, stride: int) -> range:
    """Return the numbers of parts that a length can be cut into along an axis with a stride."""
    return range(1, -(-length // stride) + 1)


def plan_run(shape: Zyx, chunk: Zyx, footprints: tuple[Footprint, ...], request: PlanRequest) -> Plan:
    """Choose blocks, shards, chunks and halos that fit together.

    Args:
        shape: shape of the map, in voxels.
        chunk: the source's unit of decoding, in voxels of the map.
        footprints: footprints of the networks whose estimates are averaged.
        request: sizes requested by the user.

    Raises:
        GridError: requested sizes that do not fit; the message names sizes that do.
    """
    if request.tile is not None:
        _refuse_tile(request.tile, footprints)
    block = _block(shape, chunk, footprints, request)
    shard = request.shard or block
    grid = BlockGrid.over(shape, block, shard, request.region)
    halos = request.halos or _halos(footprints, request.halo)
    warnings = [
        f"halo {halo} is below the {footprint.exact_halo()} that this network needs to have no seams: blocks may "
        "differ at their borders; use --halo exact to avoid that"
        for footprint, halo in zip(footprints, halos, strict=True)
        if request.halos is None and footprint.reaches_beyond(halo)
    ]
    if request.region is not None and grid.region != request.region:
        warnings.append(f"region {request.region} grows to {grid.region}: blocks write whole shards of {shard}")
    levels, chunk = request.levels, _inner_chunk(shard, request.chunk)
    if not isinstance(levels, tuple):
        levels = level_factors(shape, shard, request.voxel_nm, levels)
    return Plan(grid, shard, chunk, footprints, halos, tuple(warnings), request.tile, levels, request.output)


def _halos(footprints: tuple[Footprint, ...], halo: Zyx | Literal["exact"]) -> tuple[Zyx, ...]:
    if halo == "exact":
        return tuple(footprint.exact_halo() for footprint in footprints)
    try:
        return tuple(footprint.validate_halo(halo) for footprint in footprints)
    except GridError as error:
        if len(footprints) == 1:
            raise
        raise GridError(f"{error}; as the models differ, use --halo auto or exact, which gives each its own") from None


def _block(shape: Zyx, chunk: Zyx, footprints: tuple[Footprint, ...], request: PlanRequest) -> Zyx:
    # Blocks of a map of other voxels need not fit the networks' poolings: what they are made of is widened.
    stride = common_stride(footprints) if request.output is None else (1, 1, 1)
    if request.block is None:
        # A block of a 3-D network is at least as deep as its halo above and below, which is computed twice.
        halo_z = max(2 * footprint.exact_halo()[0] for footprint in footprints)
        return _default_block(shape, chunk, stride, request.shard, max(_BLOCK_Z, halo_z))
    if min(request.block) < 1:
        raise GridError(f"block {request.block} needs at least one voxel along each axis")
    if any(b % s for b, s in zip3(request.block, stride)):
        valid = to_zyx(ceil_to(b, s) for b, s in zip3(request.block, stride))
        raise GridError(
            f"block {request.block} is not a multiple of the network's stride {stride}, which would shift its pooling "
            f"grid; use --block {format_zyx(valid)}"
        )
    return request.block


def _default_block(shape: Zyx, chunk: Zyx, stride: Zyx, shard: Zyx | None, depth: int) -> Zyx:
    """Choose slabs of whole source chunks along z, and wide blocks along y and x to compute less halo."""
    z = chunk[0] * max(1, depth // chunk[0]) if chunk[0] <= 2 * depth else depth
    # Blocks of equal size: a narrow last block would take as long as a wide one, as all tiles have one shape.
    y, x = (-(-n // -(-n // _BLOCK_YX)) for n in shape[1:])
    even = (1, 2, 2)  # for level 1
    steps = (lcm(s, max(k, 1), e) for s, k, e in zip(stride, shard or (1, 1, 1), even, strict=True))
    return to_zyx(map(ceil_to, (min(z, shape[0]), y, x), steps))


def _inner_chunk(shard: Zyx, chunk: Zyx | None) -> Zyx:
    """Return the requested chunk, or one of about 2^18 voxels that divides the shard.

    Raises:
        GridError: a chunk that does not divide the shard.
    """
    if chunk is not None:
        if min(chunk) < 1 or any(s % c for s, c in zip3(shard, chunk)):
            raise GridError(f"chunk {chunk} does not divide the shard {shard}; choose one that does along each axis")
        return chunk
    z = _largest_divisor(shard[0], 64)
    side = 64
    while z * (2 * side) ** 2 <= _CHUNK_VOXELS:
        side *= 2
    return z, _largest_divisor(shard[1], side), _largest_divisor(shard[2], side)


def _largest_divisor(length: int, limit: int) -> int:
    """Return the largest divisor up to `limit`; the length itself if all divisors are much smaller."""
    divisor = max(d for d in range(1, min(length, limit) + 1) if length % d == 0)
    return divisor if divisor >= min(length, limit) // 4 else length
