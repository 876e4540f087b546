"""How a network is run: plain values that both the driver and the workers name. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from volseg.inference.orientations import Orientations


@dataclass(frozen=True, slots=True)
class Engine:
    """How a network is run; all of it can change the last bits of a result, so all of it is frozen in the record.

    Attributes:
        device: where.
        precision: of weights and activations.
        batch: tiles a forward pass.
        threads: of one forward pass on a CPU.
        orientations: that each tile is seen in, and averaged over.
        compiled: whether torch.compile makes the network, on a GPU.
    """

    device: Device
    precision: Precision
    batch: int
    threads: int
    orientations: Orientations = "one"
    compiled: bool = False


Device: TypeAlias = Literal["cpu", "cuda"]


Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]


ITEM_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker is asked to hold.

    Attributes:
        batch: tiles a forward pass.
        precision: of weights and activations.
        source_item: bytes of a voxel of the source.
        slots: blocks in flight.
        device: where the network runs.
        classes: volumes of probability that are made.
        estimates: of each, which are averaged.
        spread: whether their standard deviation is made too.
    """

    batch: int
    precision: Precision
    source_item: int
    slots: int
    device: Device
    classes: int = 1
    estimates: int = 1
    with_std: bool = False
