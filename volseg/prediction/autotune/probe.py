"""What a worker needs to measure one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volseg.blocks import Footprint
    from volseg.inference import Engine, Load
    from volseg.ops import Statistics


@dataclass(frozen=True)
class ProbeSpec:
    """What a worker needs to know to measure one network on one sample.

    Attributes:
        source: the volume.
        model_file: the network's.
        digest: the network's.
        footprint: the network's.
        statistics: that its input is made with.
        engine: how it is run; the error of a halo is measured within one precision.
        classes: that are written.
        load: what else the worker will be asked to hold.
        free: bytes that it may take, in main memory and on its device.
    """

    source: str
    model_file: str
    digest: str
    footprint: Footprint
    statistics: Statistics
    engine: Engine
    classes: tuple[str, ...]
    load: Load
    free: tuple[int, int]
