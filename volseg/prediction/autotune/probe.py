"""What a worker needs to measure one network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.storage import table_digest, table_of
from volseg.system import UNLIMITED

if TYPE_CHECKING:
    from volseg.blocks import Footprint
    from volseg.inference import Engine, Load
    from volseg.ops import Statistics
    from volseg.storage import VolumeRef


@dataclass(frozen=True)
class ProbeSpec:
    """A network, its input and a worker's limits; sent to the worker that measures.

    Attributes:
        source: the volume.
        model_file: path.
        digest: of the model.
        footprint: of the network.
        statistics: constants of its input.
        engine: how it is run; errors of halos are measured within one precision.
        classes: written.
        load: that the worker will have to hold.
        free: bytes that it may use, of main memory and of its device.
    """

    source: VolumeRef
    model_file: str
    digest: str
    footprint: Footprint
    statistics: Statistics
    engine: Engine
    classes: tuple[str, ...]
    load: Load
    free: tuple[int, int] = (UNLIMITED, UNLIMITED)

    @property
    def statistics_digest(self) -> str:
        """Digest of the constants."""
        return table_digest(table_of(self.statistics))
