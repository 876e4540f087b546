"""Generates a volume with its ground truth."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

import numpy as np

from volseg.errors import ConfigError
from volseg.phantom.cells import fill_cells
from volseg.phantom.microscope import paint_membranes, photograph
from volseg.phantom.neurites import MARGIN_NM, grow_neurites
from volseg.phantom.organelles import paint_cytoplasm, paint_organelles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from volseg.phantom.noise import Nm

_MIN_SHAPE = (1, 32, 32)
_MAX_VOXELS = 2**29  # about 40 GB of memory while it is generated
_MAX_UM3 = 800.0  # beyond about a thousand there are more neurites than uint16 can number


@dataclass(frozen=True, slots=True)
class Phantom:
    """A generated volume: `raw` and `labels` of one shape (z, y, x), `voxel_nm` in nanometres.

    labels: neuron ids 1.., each one connected piece; 0 is membrane and extracellular space.
    """

    raw: NDArray[np.uint8]
    labels: NDArray[np.uint16]
    voxel_nm: Nm


def make_phantom(shape: tuple[int, int, int], *, seed: int, voxel_nm: Nm = (30.0, 6.0, 6.0)) -> Phantom:
    """Generate serial-section electron microscopy of neuropil, `shape` (z, y, x) in voxels.

    Dendrites, axons, mitochondria, vesicles, reticulum and synapses, on sections that differ in
    brightness and contrast. The same arguments give the same bytes. Raises ConfigError for a shape
    below (1, 32, 32) or too large for the labels, a negative seed, or a voxel size outside 1..100 nm.

    >>> phantom = make_phantom((2, 32, 48), seed=0)
    >>> phantom.raw.shape, phantom.raw.dtype.name, phantom.labels.dtype.name
    ((2, 32, 48), 'uint8', 'uint16')
    """
    _check(shape, seed, voxel_nm)
    # One generator per step: a change in one step does not change the random numbers of the others.
    growth, geometry, contents, membranes, camera = np.random.default_rng(seed).spawn(5)
    extent = (shape[0] * voxel_nm[0], shape[1] * voxel_nm[1], shape[2] * voxel_nm[2])
    cells = fill_cells(shape, voxel_nm, grow_neurites(extent, growth), geometry)
    light = paint_cytoplasm(cells, contents)
    paint_organelles(light, cells, contents)
    paint_membranes(light, cells, membranes)
    return Phantom(photograph(light, voxel_nm, camera), cells.labels, voxel_nm)


def _check(shape: Sequence[object], seed: object, voxel_nm: Sequence[float]) -> None:
    """Refuse arguments that cannot be used."""
    sizes = [n for n, minimum in zip(shape, _MIN_SHAPE, strict=False) if isinstance(n, Integral) and int(n) >= minimum]
    if len(shape) != 3 or len(sizes) != 3:
        raise ConfigError(
            f"phantom shape {shape} is not valid; give three whole numbers (z, y, x), at least {_MIN_SHAPE}"
        )
    if not isinstance(seed, Integral) or int(seed) < 0:
        raise ConfigError(f"phantom seed {seed!r} is invalid; give a whole number from 0, e.g. seed=0")
    if len(voxel_nm) != 3 or not all(1 <= nm <= 100 for nm in voxel_nm):
        raise ConfigError(
            f"phantom voxel size {voxel_nm} is not valid; give (z, y, x) in nm, each from 1 to 100, e.g. (30, 6, 6)"
        )
    voxels = math.prod(map(int, sizes))
    tissue = math.prod(int(n) * nm + 2 * MARGIN_NM for n, nm in zip(sizes, voxel_nm, strict=True)) / 1e9
    if voxels > _MAX_VOXELS or tissue > _MAX_UM3:
        raise ConfigError(
            f"phantom shape {shape} has {voxels:,} voxels in {tissue:,.0f} cubic micrometres of tissue; "
            f"at most {_MAX_VOXELS:,} and {_MAX_UM3:,.0f} are supported: generate several volumes with different seeds"
        )
