"""What is compared: networks, and the sections that they are run on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import PEERS
from benchmarks.widening import widened
from volseg.blocks import Box
from volseg.models import packaged_models, read_card
from volseg.phantom import make_phantom
from volseg.storage import open_stack
from volseg.storage.target import create_volume
from volseg.testing.factories import VOXEL_NM, make_model

SIDE, DEPTH = 1024, 32
"""Sections are cut to this side; the volume has this many: for fewer, measuring the halo is not worth it."""


@dataclass(frozen=True)
class Case:
    """A network that is compared.

    Attributes:
        name: of the result.
        network: in the registry.
        arguments: what it is made with.
        packaged: the packaged model to take, widened where the network is wider; random weights where there is none.
        precision: that volseg is asked for; `auto` goes by what it costs, which says nothing of random weights.
        sections: that volseg does in a round, for pipelines fill and drain; all others do one.
        seconds: no further round begins that would end later.
        peers: contenders besides volseg.
    """

    name: str
    network: str
    arguments: dict[str, Any]
    packaged: str = ""
    precision: str = "auto"
    sections: int = 4
    seconds: float = 80
    peers: tuple[str, ...] = tuple(PEERS)


CASES = (
    Case("fusionnet-16", "fusionnet", {"width": 16}, packaged="fusionnet-snemi3d", sections=8, seconds=400),
    Case("unet-32", "unet", {"width": 32, "padded": True}, precision="bfloat16", sections=8, seconds=300),
    # The naive way is slow at any width; one will do.
    Case(
        "fusionnet-64",
        "fusionnet",
        {"width": 64},
        packaged="fusionnet-snemi3d",
        sections=2,
        seconds=1300,
        peers=tuple(PEERS)[:3],
    ),
)


def make_source(path: Path, raw: str) -> str:
    """Write sections to compare on as Zarr, those of a stack or generated ones; returns what they are."""
    if raw:
        stack = open_stack(Path(raw))
        depth, side_y, side_x = (min(n, most) for n, most in zip(stack.shape, (DEPTH, SIDE, SIDE), strict=True))
        voxels = stack.read(0, depth)[:, :side_y, :side_x]
    else:
        few = make_phantom((2, SIDE, SIDE), seed=5).raw
        voxels = np.concatenate([few] * (DEPTH // len(few)))
    _, y, x = voxels.shape
    shard, chunk = (1, y, x), (1, 128 if y % 128 == 0 else y, 128 if x % 128 == 0 else x)
    target = create_volume(
        path, shape=voxels.shape, shard=shard, chunk=chunk, dtype=voxels.dtype.name, voxel_nm=VOXEL_NM
    )
    target.write(Box.of_shape(voxels.shape), voxels)
    return Path(raw).name if raw else "generated EM"


def model_of(case: Case, folder: Path) -> Path:
    """The model file of a case."""
    made = folder / f"{case.name}.safetensors"
    if not case.packaged:
        return make_model(made, case.network, case.arguments)
    packaged = packaged_models()[case.packaged]
    width: int = case.arguments["width"]
    return packaged if read_card(packaged).card.arguments["width"] == width else widened(made, packaged, width)
