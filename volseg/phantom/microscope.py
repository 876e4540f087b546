"""From clean tissue to sections as a microscope takes them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from volseg.phantom.noise import Nm, smooth_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.phantom.cells import Cells

_BLUR_NM = 4.5
_STAIN_PER_UM3 = 0.35
_MEMBRANE_LIGHT = 0.17  # light that a membrane cut straight across lets through


def paint_membranes(light: NDArray[np.float32], cells: Cells, rng: np.random.Generator) -> None:
    """Stain the membranes of `light` (z, y, x), in place.

    A section is a slab: a membrane across it is a crisp line, one that lies aslant is spread over
    its projection, wider and paler. Between the two cells' membranes the cleft shows here and there.
    """
    shape, voxel_nm = cells.owner.shape, cells.voxel_nm
    strength = 0.86 + 0.10 * np.tanh(smooth_noise(shape, voxel_nm, 180.0, rng))
    cleft = np.clip(smooth_noise(shape, voxel_nm, 300.0, rng), 0, 1) * np.float32(0.5)
    stain = _in_slab(cells, cells.half_nm) - cleft * _in_slab(cells, np.float32(4.0))
    stain *= strength
    stain[(cells.labels == 0) & (cells.edge_nm > cells.half_nm)] = 0.7  # crumbs of lost cells
    light += (np.float32(_MEMBRANE_LIGHT) - light) * stain


def _in_slab(cells: Cells, half_nm: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Fraction of each voxel's depth range within `half_nm` of the boundary, 0..1."""
    # Never less than half a pixel: the membrane's outline is antialiased.
    spread = np.maximum(cells.spread_nm, np.float32(cells.voxel_nm[2] / 2))
    top = np.minimum(cells.edge_nm + spread, half_nm)
    bottom = np.maximum(cells.edge_nm - spread, -half_nm)
    return np.asarray(np.maximum(top - bottom, 0) / (2 * spread))


def photograph(light: NDArray[np.float32], voxel_nm: Nm, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Raw sections (z, y, x) of `light`: uneven exposure, stain, blur, shot noise, 8 bits."""
    _stain_spots(light, voxel_nm, rng)
    sigma = [0.0, *(_BLUR_NM / nm for nm in voxel_nm[1:])]
    image = ndimage.gaussian_filter(light, sigma)
    noise = rng.standard_normal(image.shape, dtype=np.float32)
    # Detector and resampling correlate neighbouring pixels, so noise is grain rather than salt.
    noise = 0.75 * noise + ndimage.gaussian_filter(noise, (0, 0.9, 0.9)) * np.float32(2.0)
    image += noise * np.float32(0.055) * np.sqrt(np.maximum(image, 0.05))
    return _expose(image, rng)


def _expose(image: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Grey values: each section with its own brightness, contrast and gradient of illumination."""
    depth, height, width = image.shape
    column = (depth, 1, 1)
    contrast = rng.normal(1.0, 0.09, size=column)
    brightness = rng.normal(0.0, 0.055, size=column)
    tilt_y, tilt_x = rng.normal(0, 0.035, size=(2, *column))
    y = np.linspace(-1, 1, height).reshape(1, -1, 1)
    x = np.linspace(-1, 1, width).reshape(1, 1, -1)
    grey = (image - 0.55) * contrast + 0.52 + brightness + tilt_y * y + tilt_x * x
    return np.asarray(np.rint(np.clip(grey * 255, 0, 255)), np.uint8)


def _stain_spots(light: NDArray[np.float32], voxel_nm: Nm, rng: np.random.Generator) -> None:
    """Dirt: soft dark spots, each on a single section, in place."""
    volume = light.size * np.prod(voxel_nm) / 1e9
    y, x = np.ogrid[: light.shape[1], : light.shape[2]]
    for _ in range(rng.poisson(_STAIN_PER_UM3 * volume)):
        section, *centre = (int(i) for i in rng.integers(light.shape))
        size = rng.uniform(20, 90) / np.array(voxel_nm[1:])
        far = ((y - centre[0]) / size[0]) ** 2 + ((x - centre[1]) / size[1]) ** 2
        light[section] *= (1 - rng.uniform(0.4, 0.85) * np.exp(-(far**1.5))).astype(np.float32)
