"""Organelles: dark structures that are not cell membrane and mislead a network.

Everything is painted into `light`, a float32 image (z, y, x): 1 is resin, 0 is solid stain.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from volseg.phantom.noise import Nm, smooth_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.phantom.cells import Cells
    from volseg.phantom.neurites import Neurite

_CLEAR_NM = 7.0  # organelles keep this far from the cell's own membrane
_PER_UM = {"mitochondria": 0.9, "reticulum": 0.7, "microtubules": 5.0}
_SPECKS_PER_UM3 = 4500.0
_CLUSTERS_PER_UM3 = 14.0  # attempts; about half find a suitable spot
_VESICLE_NM = 20.0  # radius


def paint_cytoplasm(cells: Cells, rng: np.random.Generator) -> NDArray[np.float32]:
    """Light (z, y, x) of the cytoplasm: each cell its own shade, uneven and finely grained."""
    shape = cells.owner.shape
    shade = rng.normal(0.70, 0.045, size=int(cells.owner.max()) + 1).astype(np.float32)
    light = np.clip(shade, 0.56, 0.82)[cells.owner]
    light += np.float32(0.025) * smooth_noise(shape, cells.voxel_nm, 220.0, rng)
    light += np.float32(0.040) * smooth_noise(shape, cells.voxel_nm, 26.0, rng)
    return light


def paint_organelles(light: NDArray[np.float32], cells: Cells, rng: np.random.Generator) -> None:
    """Add specks, reticulum, synapses and mitochondria to `light`, in place."""
    _paint_specks(light, cells, rng)
    _paint_synapses(light, cells, rng)
    for number, neurite in enumerate(cells.neurites, start=1):
        calibre = float(np.median(neurite.radius))
        if calibre > 110:
            for node in _along(neurite, _PER_UM["reticulum"], rng):
                _paint_body(light, cells, _cisterna(neurite, number, node, rng), rng)
        if calibre > 75:
            for node in _along(neurite, _PER_UM["mitochondria"] * max(1.0, calibre / 160), rng):
                _paint_body(light, cells, _mitochondrion(neurite, number, node, rng), rng)


def _along(neurite: Neurite, per_um: float, rng: np.random.Generator) -> NDArray[np.intp]:
    """Nodes of the centre-line at uneven distances, about `per_um` of them per micrometre."""
    steps = np.linalg.norm(np.diff(neurite.points, axis=0), axis=1)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    count = int(along[-1] * per_um / 600) + 2
    stops = np.cumsum(rng.uniform(0.6, 1.4, size=count)) - rng.uniform(0.0, 1.4)
    stops = stops[(stops >= 0) & (stops * 1000 / per_um <= along[-1])]
    return np.asarray(np.searchsorted(along, stops * 1000 / per_um))


# --- Mitochondria and endoplasmic reticulum: ellipsoids along the neurite ---


@dataclass(frozen=True, slots=True)
class _Body:
    """An ellipsoid in cell `owner`: centre and half-axes in nm, axes as rows of a rotation."""

    owner: int
    centre: NDArray[np.float64]
    axes: NDArray[np.float64]
    half_axes: NDArray[np.float64]
    cristae: bool


def _mitochondrion(neurite: Neurite, owner: int, node: int, rng: np.random.Generator) -> _Body:
    radius = neurite.radius[node]
    width = min(rng.uniform(0.55, 0.8) * radius, rng.uniform(90, 150))
    half_axes = np.array([rng.uniform(1.6, 4.5), 1.0, rng.uniform(0.8, 1.1)]) * width
    half_axes = np.minimum(half_axes, 380)
    axes = _frame(neurite.tangents[node], rng)
    aside = max(radius - width, 0) * rng.uniform(-0.6, 0.6)
    return _Body(owner, neurite.points[node] + aside * axes[1], axes, half_axes, cristae=True)


def _cisterna(neurite: Neurite, owner: int, node: int, rng: np.random.Generator) -> _Body:
    half_axes = np.array([rng.uniform(90, 320), rng.uniform(14, 26), rng.uniform(30, 90)])
    axes = _frame(neurite.tangents[node], rng)
    aside = neurite.radius[node] * rng.uniform(-0.75, 0.75)
    return _Body(owner, neurite.points[node] + aside * axes[1], axes, half_axes, cristae=False)


def _frame(along: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Three orthogonal unit vectors (rows), the first along `along`, the others turned at random."""
    rows = np.vstack([along + 0.15 * rng.standard_normal(3), rng.standard_normal((2, 3))])
    q, r = np.linalg.qr(rows.T)
    return np.asarray((q * np.sign(np.diag(r))).T)


def _paint_body(light: NDArray[np.float32], cells: Cells, body: _Body, rng: np.random.Generator) -> None:
    """Paint one organelle, if its cell has room for it."""
    bent = body.half_axes * (1.05, 1.6, 1.05)  # room for the bend
    reach = np.abs(body.axes.T) @ bent
    window = _window(body.centre, reach, cells)
    at = np.nonzero(cells.owner[window] == body.owner)
    if not at[0].size:
        return
    first = np.array([w.start for w in window])
    places = (np.stack(at, axis=1) + first) * cells.voxel_nm - body.centre
    u = places @ body.axes.T
    depth = _depth(u, body.half_axes, rng)
    # Pressed against the cell's membrane an organelle takes its shape, never crosses it.
    room = (cells.edge_nm[window] - cells.half_nm[window])[at] - _CLEAR_NM
    depth = np.minimum(depth, room)
    view = light[window]
    stain, cover = _mitochondrial_light(depth, u, rng) if body.cristae else _er_light(depth, rng)
    view[at] += (stain - view[at]) * cover


def _window(centre: NDArray[np.float64], reach: NDArray[np.float64], cells: Cells) -> tuple[slice, slice, slice]:
    """The box of voxels within `reach` nm of `centre`, cut to the volume; may be empty."""
    shape = np.array(cells.owner.shape)
    start = np.clip(np.ceil((centre - reach) / cells.voxel_nm), 0, shape).astype(int)
    stop = np.clip(np.floor((centre + reach) / cells.voxel_nm) + 1, start, shape).astype(int)
    return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])


def _depth(u: NDArray[np.float64], half_axes: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Depth in nm below the surface of a bent ellipsoid, for places `u` (n, 3) in its frame."""
    length, width, _ = half_axes
    bend = 0.5 * width * np.sin(u[:, 0] / length * 2.2 + rng.uniform(0, 6.28))
    bent = np.column_stack([u[:, 0], u[:, 1] - bend, u[:, 2]]) / half_axes
    # Fourth power along the axis: the blunt ends of a sausage rather than a lemon's tips.
    radius = (bent[:, 0] ** 4 + (bent[:, 1] ** 2 + bent[:, 2] ** 2) ** 2) ** 0.25
    return np.asarray((1 - radius) * width)


def _mitochondrial_light(
    depth: NDArray[np.float64], u: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light and cover (n,): two membranes, a dark matrix, and cristae across it."""
    matrix = rng.uniform(0.30, 0.48)
    spacing = rng.uniform(38, 60)
    p, q, r = rng.uniform(0, 6.28, size=3)
    across = u[:, 0] + 16 * np.sin(u[:, 1] / 38 + p) + 12 * np.sin(u[:, 2] / 45 + q)
    crista = _line(across % spacing - spacing / 2, 6.0) * (np.sin(u[:, 1] / 50 + u[:, 0] / 90 + r) > -0.5)
    stain = matrix - (matrix - 0.16) * 0.75 * crista * (depth > 14)
    stain = stain + 0.16 * _line(depth - 11, 3.5)
    stain = stain - (stain - 0.15) * np.maximum(_line(depth - 3, 4.0), 0.6 * _line(depth - 18, 4.0))
    return stain, np.clip(depth / 4 + 0.5, 0, 1)


def _er_light(depth: NDArray[np.float64], rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Light and cover (n,): one dark membrane around a pale lumen."""
    stain = 0.74 - rng.uniform(0.30, 0.50) * _line(depth - 2, 5.0)
    return stain, np.clip(depth / 5 + 0.8, 0, 1)


def _line(distance: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """1 on a line, falling off as a Gaussian of standard deviation `width`."""
    return np.asarray(np.exp(-0.5 * (distance / width) ** 2))


# --- Synapses: a stained membrane with vesicles behind it ---


def _paint_synapses(light: NDArray[np.float32], cells: Cells, rng: np.random.Generator) -> None:
    volume = np.prod(cells.owner.shape) * np.prod(cells.voxel_nm) / 1e9
    for _ in range(rng.poisson(_CLUSTERS_PER_UM3 * volume)):
        spot = tuple(int(i) for i in rng.integers(cells.owner.shape))
        window = _window(np.array(spot) * cells.voxel_nm, np.full(3, 330.0), cells)
        calibre = cells.neurites[cells.owner[spot] - 1].radius.mean()
        near = cells.edge_nm[spot]
        # Vesicles gather in axons, near the membrane; dendrites have none.
        if near < 90 and calibre < 180:
            _paint_vesicles(light, cells, (spot, window), rng)
            if near < 45:
                _paint_density(light, cells, (spot, window), rng)


_Spot = tuple[tuple[int, ...], tuple[slice, slice, slice]]


def _offsets_nm(spot: _Spot, voxel_nm: Nm) -> tuple[NDArray[np.float64], ...]:
    """Open grids (z, y, x) of the window's distance from its spot along each axis, in nm."""
    where, window = spot
    return np.ix_(*((np.arange(w.start, w.stop) - i) * nm for w, i, nm in zip(window, where, voxel_nm, strict=True)))


def _paint_vesicles(light: NDArray[np.float32], cells: Cells, spot: _Spot, rng: np.random.Generator) -> None:
    """A cluster of pale balls with dark rims, 40 nm across, in the cell of `spot`."""
    where, window = spot
    z, y, x = _offsets_nm(spot, cells.voxel_nm)
    close = z**2 + y**2 + x**2 < rng.uniform(150, 320) ** 2
    room = cells.edge_nm[window] > cells.half_nm[window] + _VESICLE_NM
    places = np.argwhere(close & room & (cells.owner[window] == cells.owner[where]))
    if not len(places):
        return
    # Up to two thirds of the room is vesicles: a ball of 20 nm has 3.4e4 cubic nm.
    max_count = len(places) * np.prod(cells.voxel_nm) / 3.4e4
    centres = places[rng.integers(len(places), size=int(rng.uniform(0.25, 0.75) * max_count))]
    first = np.array([w.start for w in window])
    jitter = rng.uniform(-0.5, 0.5, size=centres.shape)
    for centre in (centres + first + jitter) * cells.voxel_nm:
        _paint_vesicle(light, cells, centre)


def _paint_vesicle(light: NDArray[np.float32], cells: Cells, centre: NDArray[np.float64]) -> None:
    window = _window(centre, np.full(3, _VESICLE_NM + 5), cells)
    z, y, x = np.ix_(
        *((np.arange(w.start, w.stop) * nm - c) ** 2 for w, c, nm in zip(window, centre, cells.voxel_nm, strict=True))
    )
    depth = _VESICLE_NM - np.sqrt(z + y + x)
    cover = np.clip(depth / 6 + 0.7, 0, 1)
    light[window] += ((0.72 - 0.36 * _line(depth - 3, 4.0)) - light[window]) * cover


def _paint_density(light: NDArray[np.float32], cells: Cells, spot: _Spot, rng: np.random.Generator) -> None:
    """The postsynaptic density: stain on the other side of the membrane near `spot`."""
    where, window = spot
    z, y, x = _offsets_nm(spot, cells.voxel_nm)
    near = np.exp(-(((z**2 + y**2 + x**2) / rng.uniform(90, 170) ** 2) ** 2))
    deep = np.exp(-((cells.edge_nm[window] / rng.uniform(26, 42)) ** 2))
    stain = rng.uniform(0.6, 0.9) * near * deep * (cells.owner[window] != cells.owner[where])
    light[window] *= 1 - stain


# --- Specks: microtubules, ribosomes, grains ---


def _paint_specks(light: NDArray[np.float32], cells: Cells, rng: np.random.Generator) -> None:
    """Small dark dots: strewn everywhere, and in rows along the thicker neurites."""
    shape, voxel_nm = cells.owner.shape, cells.voxel_nm
    volume = np.prod(shape) * np.prod(voxel_nm) / 1e9
    strewn = rng.uniform(size=(int(_SPECKS_PER_UM3 * volume), 3)) * shape
    rows = [_microtubules(n, voxel_nm, rng) for n in cells.neurites if n.radius.mean() > 90]
    weights = np.concatenate([rng.uniform(0.2, 1.0, size=len(strewn)), *(np.full(len(r), 0.35) for r in rows)])
    places = np.vstack([strewn, *rows])
    inside = np.all((places >= 0) & (places < shape), axis=1)
    dots = np.zeros(shape, np.float32)
    np.add.at(dots, tuple(places[inside].astype(int).T), weights[inside].astype(np.float32))
    sigma = [0.0, *(5.5 / nm for nm in voxel_nm[1:])]
    ndimage.gaussian_filter(dots, sigma, output=dots)
    # The peak of one blurred dot is 1 / (2 pi sigma^2): scaled to 0.45 stain.
    peak = 2 * np.pi * max(sigma[1] * sigma[2], 0.16)
    light *= 1 - np.minimum(dots * np.float32(0.45 * peak), np.float32(0.5))


def _microtubules(neurite: Neurite, voxel_nm: Nm, rng: np.random.Generator) -> NDArray[np.float64]:
    """Places (n, 3) in voxels, every few nm along parallels of the centre-line."""
    count = rng.poisson(_PER_UM["microtubules"] * neurite.radius.mean() / 50)
    nodes = np.arange(0, len(neurite.points) - 1, 8 / 45)
    places = []
    for _ in range(count):
        aside = rng.uniform(-0.55, 0.55, size=3) * neurite.radius.mean()
        drift = aside + np.cumsum(rng.normal(0, 0.8, size=(len(nodes), 3)), axis=0)
        line = np.column_stack([np.interp(nodes, np.arange(len(neurite.points)), c) for c in neurite.points.T])
        places.append((line + drift) / voxel_nm)
    return np.concatenate(places) if places else np.empty((0, 3))
