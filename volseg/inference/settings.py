"""How a network is run: plain values that the driver and the workers share. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Device: TypeAlias = Literal["cpu", "cuda"]
Precision: TypeAlias = Literal["float32", "bfloat16", "float16"]
Orientations: TypeAlias = Literal["one", "flips", "all"]

ITEM_BYTES: dict[Precision, int] = {"float32": 4, "bfloat16": 2, "float16": 2}


@dataclass(frozen=True, slots=True)
class Engine:
    """How a network is run. Each value can change the last bits of a result, so the run record stores them all.

    Attributes:
        device: where it runs.
        precision: of weights and activations.
        batch: tiles per forward pass.
        threads: of one forward pass on a CPU; 0 keeps torch's setting.
        orientations: in which each tile is predicted, and which are averaged.
        compiled: run the network through torch.compile, on a GPU.
    """

    device: Device
    precision: Precision
    batch: int
    threads: int
    orientations: Orientations = "one"
    compiled: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What a worker has to hold in memory.

    Attributes:
        batch: tiles per forward pass.
        precision: of weights and activations.
        source_item: bytes per voxel of the source.
        slots: blocks in flight.
        device: where the network runs.
        classes: probability volumes that are written.
        estimates: of each class, which are averaged.
        with_std: compute the standard deviation of the estimates too.
        enlargement: voxels that are written for each that a network sees.
    """

    batch: int
    precision: Precision
    source_item: int
    slots: int
    device: Device
    classes: int = 1
    estimates: int = 1
    with_std: bool = False
    enlargement: float = 1.0
