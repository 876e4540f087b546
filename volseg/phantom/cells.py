"""From centre-lines to voxels: owner of each voxel, and distance to the nearest membrane."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage import measure

from volseg.phantom.neurites import Neurite, lifting_map
from volseg.phantom.noise import Nm, smooth_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_FAR = np.float32(1.3e5)  # squared nm: power distances are cut off here, far outside any cell
_WARP_NM = 160.0  # the warp never moves a point further than this, along any axis
_COARSE_NM = 30.0  # power distances are smooth: computed this far apart and interpolated
_HALF_MEMBRANE_NM = 13.5  # from the middle of the cleft to the cytoplasm
_SMALLEST_MEMBRANE_NM2 = 4e3  # on one section
_SMALLEST_CELL_NM3 = 1.2e5  # crumbs below this are membrane


@dataclass(frozen=True, slots=True)
class Cells:
    """Geometry of the tissue, arrays all of one shape (z, y, x).

    owner: cell number 1.. of every voxel, membrane included.
    labels: the ground truth, 0 where the membrane is; each id one connected piece.
    edge_nm: distance to the boundary between two owners, exact near it.
    spread_nm: half the depth range that a section of this thickness mixes into `edge_nm`.
    half_nm: half the membrane's thickness here.
    neurites: centre-lines as they lie in the volume; neurite `i` is owner `i + 1`.
    """

    owner: NDArray[np.uint16]
    labels: NDArray[np.uint16]
    edge_nm: NDArray[np.float32]
    spread_nm: NDArray[np.float32]
    half_nm: NDArray[np.float32]
    neurites: list[Neurite]
    voxel_nm: Nm


def fill_cells(
    shape: tuple[int, int, int],
    voxel_nm: Nm,
    neurites: Sequence[Neurite],
    rng: np.random.Generator,
) -> Cells:
    """Give every voxel to the neurite nearest to it in power distance, on a warped domain."""
    grid = _CoarseGrid.over(shape, voxel_nm)
    warp = _warp(grid, rng)
    owner, gap = _two_nearest(grid, warp, neurites)
    edge, spread = _edge(gap, voxel_nm)
    inside = (slice(1, -1), slice(0, shape[1]), slice(0, shape[2]))
    owner, edge, spread = owner[inside].copy(), edge[inside].copy(), spread[inside].copy()
    # Where voxels are coarse the membrane must still be a voxel wide, or cells would merge.
    half = np.maximum(_HALF_MEMBRANE_NM, 0.75 * max(voxel_nm[1:]))
    half_nm = half + 1.5 * np.tanh(smooth_noise(shape, voxel_nm, 250.0, rng))
    membrane = _without_specks(edge < half_nm, voxel_nm) | _borders(owner)
    labels = _connected(np.where(membrane, 0, owner).astype(np.uint16), voxel_nm)
    in_volume = [_unwarped(neurite, grid, warp) for neurite in neurites]
    return Cells(owner, labels, edge, spread, half_nm, in_volume, voxel_nm)


@dataclass(frozen=True, slots=True)
class _CoarseGrid:
    """Nodes in every section (one more before and after), and in-plane at every `spacing`-th voxel."""

    fine: tuple[int, int, int]
    spacing: tuple[int, int]
    shape: tuple[int, int, int]
    step_nm: Nm

    @classmethod
    def over(cls, shape: tuple[int, int, int], voxel_nm: Nm) -> _CoarseGrid:
        spacing = tuple(max(1, round(_COARSE_NM / nm)) for nm in voxel_nm[1:])
        cells = [-(-n // k) for n, k in zip(shape[1:], spacing, strict=True)]
        return cls(
            fine=(shape[0] + 2, cells[0] * spacing[0], cells[1] * spacing[1]),
            spacing=(spacing[0], spacing[1]),
            shape=(shape[0] + 2, cells[0] + 1, cells[1] + 1),
            step_nm=(voxel_nm[0], voxel_nm[1] * spacing[0], voxel_nm[2] * spacing[1]),
        )

    def origin_nm(self) -> NDArray[np.float64]:
        return np.array([-self.step_nm[0], 0.0, 0.0])

    def points_nm(self) -> NDArray[np.float64]:
        """Positions (z, y, x, 3) of the coarse nodes."""
        places = np.moveaxis(np.indices(self.shape, dtype=np.float64), 0, -1)
        return places * self.step_nm + self.origin_nm()

    def interpolate(self, nodes: NDArray[np.float32]) -> NDArray[np.float32]:
        """Interpolate a box of nodes linearly in-plane, to the voxels between them."""
        for axis, k in zip((1, 2), self.spacing, strict=True):
            steps = np.tile(np.arange(k, dtype=np.float32) / np.float32(k), nodes.shape[axis] - 1)
            t = steps.reshape((-1, 1) if axis == 1 else (-1,))
            low = np.repeat(nodes.take(range(nodes.shape[axis] - 1), axis), k, axis)
            high = np.repeat(nodes.take(range(1, nodes.shape[axis]), axis), k, axis)
            nodes = np.asarray(low + (high - low) * t, np.float32)
        return nodes


def _warp(grid: _CoarseGrid, rng: np.random.Generator) -> NDArray[np.float32]:
    """Displacement (3, z, y, x) in nm: bends cells, and ruffles their membranes."""
    scales = ((600.0, 70.0), (180.0, 26.0), (80.0, 8.0))
    displacement = np.zeros((3, *grid.shape), np.float32)
    for along in displacement:
        for scale, nm in scales:
            along += np.float32(nm) * smooth_noise(grid.shape, grid.step_nm, scale, rng)
    return np.asarray(np.tanh(displacement / np.float32(_WARP_NM)) * np.float32(_WARP_NM))


def _two_nearest(
    grid: _CoarseGrid, warp: NDArray[np.float32], neurites: Sequence[Neurite]
) -> tuple[NDArray[np.uint16], NDArray[np.float32]]:
    """Owner of each voxel, and by how much (squared nm) it is nearer than the next cell."""
    owner = np.zeros(grid.fine, np.uint16)
    best = np.full(grid.fine, _FAR)
    second = np.full(grid.fine, _FAR)
    places = grid.points_nm() + np.moveaxis(warp, 0, -1)
    for number, neurite in enumerate(neurites, start=1):
        nodes = _nodes_near(grid, neurite)
        coarse = _power_distance(places[nodes], neurite)
        trim = _bounding_box(coarse < _FAR)
        if trim is None:
            continue
        power = grid.interpolate(coarse[trim])
        nodes = _shifted(trim, nodes)
        voxels = (nodes[0], *map(_voxels_between, nodes[1:], grid.spacing))
        here, next_best = best[voxels], second[voxels]
        np.minimum(next_best, np.maximum(here, power), out=next_best)
        owner[voxels][power < here] = number
        np.minimum(here, power, out=here)
    return owner, second - best


def _nodes_near(grid: _CoarseGrid, neurite: Neurite) -> tuple[slice, slice, slice]:
    """The box of coarse nodes outside which this neurite's power distance is cut off."""
    reach = np.sqrt(neurite.radius[:, None] ** 2 + float(_FAR)) + _WARP_NM
    low = ((neurite.points - reach).min(0) - grid.origin_nm()) / grid.step_nm
    high = ((neurite.points + reach).max(0) - grid.origin_nm()) / grid.step_nm
    start = np.clip(np.floor(low), 0, grid.shape).astype(int)
    stop = np.clip(np.ceil(high) + 1, 0, grid.shape).astype(int)
    return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])


def _bounding_box(near: NDArray[np.bool_]) -> tuple[slice, slice, slice] | None:
    """The smallest box that holds all of `near`, one node wider in-plane; None if there is none."""
    if not near.any():
        return None
    box = []
    for axis, grown in enumerate((0, 1, 1)):
        at = np.flatnonzero(near.any(axis=tuple({0, 1, 2} - {axis})))
        box.append(slice(max(at[0] - grown, 0), min(at[-1] + 1 + grown, near.shape[axis])))
    return box[0], box[1], box[2]


def _shifted(inner: tuple[slice, slice, slice], outer: tuple[slice, slice, slice]) -> tuple[slice, slice, slice]:
    """A box counted from the start of `outer`, counted from the origin."""
    z, y, x = (slice(o.start + i.start, o.start + i.stop) for i, o in zip(inner, outer, strict=True))
    return z, y, x


def _voxels_between(nodes: slice, spacing: int) -> slice:
    return slice(nodes.start * spacing, (nodes.stop - 1) * spacing)


def _power_distance(places: NDArray[np.float64], neurite: Neurite) -> NDArray[np.float32]:
    """Minimum of |q - p|^2 - r^2 over the neurite's points, for places (z, y, x, 3)."""
    if not places.size:
        return np.empty(places.shape[:-1], np.float32)
    queries = np.pad(places.reshape(-1, 3), ((0, 0), (0, 1)))
    largest = neurite.radius.max() ** 2
    limit = np.sqrt(float(_FAR) + largest)
    tree = cKDTree(lifting_map(neurite.points, neurite.radius))
    distance, _ = tree.query(queries, distance_upper_bound=limit)
    power = np.minimum(distance**2 - largest, float(_FAR))
    return np.asarray(power, np.float32).reshape(places.shape[:-1])


def _edge(gap: NDArray[np.float32], voxel_nm: Nm) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance in nm to where `gap` is zero (first order), and its spread within one section."""
    slopes = [_slope(gap, axis) / np.float32(nm) for axis, nm in enumerate(voxel_nm)]
    steepness = np.sqrt(slopes[0] ** 2 + slopes[1] ** 2 + slopes[2] ** 2) + np.float32(1e-3)
    return gap / steepness, np.float32(voxel_nm[0] / 2) * slopes[0] / steepness


def _slope(gap: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Size of the steeper one-sided difference: at the boundary, a kink, the central one would vanish."""
    step = np.abs(np.diff(gap, axis=axis))
    first, last = step.take([0], axis), step.take([-1], axis)
    behind, ahead = np.concatenate([first, step], axis=axis), np.concatenate([step, last], axis=axis)
    return np.asarray(np.maximum(behind, ahead))


def _borders(owner: NDArray[np.uint16]) -> NDArray[np.bool_]:
    """Where the next voxel of the section has another owner: no two cells ever touch side by side."""
    border = np.zeros(owner.shape, dtype=bool)
    border[:, :-1] = owner[:, :-1] != owner[:, 1:]
    border[..., :-1] |= owner[..., :-1] != owner[..., 1:]
    return border


def _without_specks(membrane: NDArray[np.bool_], voxel_nm: Nm) -> NDArray[np.bool_]:
    """Leave out islands within one section, where the next section's cell only just shows through."""
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    in_plane[1] = True
    islands, _ = ndimage.label(membrane, in_plane)
    keep = np.bincount(islands.ravel()) * voxel_nm[1] * voxel_nm[2] >= _SMALLEST_MEMBRANE_NM2
    keep[0] = False
    return np.asarray(keep[islands])


def _connected(labels: NDArray[np.uint16], voxel_nm: Nm) -> NDArray[np.uint16]:
    """Number connected pieces 1..n; crumbs become membrane."""
    pieces = np.asarray(measure.label(labels, background=0, connectivity=1))  # type: ignore[no-untyped-call]
    sizes = np.bincount(pieces.ravel())
    # At least five voxels, so that a coarse phantom has no single voxels.
    keep = sizes >= max(_SMALLEST_CELL_NM3 / math.prod(voxel_nm), 5)
    keep[0] = False
    number = np.where(keep, np.cumsum(keep), 0).astype(np.uint16)
    return np.asarray(number[pieces])


def _unwarped(neurite: Neurite, grid: _CoarseGrid, warp: NDArray[np.float32]) -> Neurite:
    """The centre-line as it lies in the volume (the warp is small, so one step back is enough)."""
    nodes = ((neurite.points - grid.origin_nm()) / grid.step_nm).T
    shift = [ndimage.map_coordinates(w, nodes, order=1, mode="nearest") for w in warp]
    return Neurite(neurite.points - np.stack(shift, axis=1), neurite.radius)
