"""Forward passes over a block: their settings, and what is in flight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import Box, Tiling
    from volseg.inference.optimize.optimize import SpecializedNetwork
    from volseg.inference.orientations import Orientation
    from volseg.ops import Grey


@dataclass(frozen=True)
class PassConfig:
    """Settings of forward passes.

    Attributes:
        tiling: of their tiles.
        batch: tiles per pass, at most.
        networks: for each orientation, the network for its tiles and the position of the core in its output.
    """

    tiling: Tiling
    batch: int
    networks: dict[Orientation, tuple[SpecializedNetwork, tuple[slice, ...]]]


@dataclass(frozen=True)
class OrientedBlock:
    """A block to predict in one orientation.

    Attributes:
        grey: values of the read box.
        write_box: to predict.
        orientation: of its tiles.
    """

    grey: Grey
    write_box: Box
    orientation: Orientation


@dataclass(frozen=True)
class DeviceResult:
    """A pass that the device may still compute: call `cores` first, which waits for it."""

    cores: Callable[[], NDArray[Any]]
    finite: Callable[[], NDArray[np.bool_]]
    seconds: Callable[[], float]


@dataclass(frozen=True)
class Pass:
    """Cores in one forward pass; the result is None if the device ran out of memory."""

    cores: list[Box]
    config: PassConfig
    result: Future[DeviceResult | None]
