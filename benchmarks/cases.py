"""Networks and sections of the comparison with peers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters import PEERS
from benchmarks.widening import widen_model
from volseg.blocks import Box
from volseg.models import packaged_models, read_card
from volseg.phantom import make_phantom
from volseg.storage import open_stack
from volseg.storage.create import create_volume
from volseg.storage.place import Place
from volseg.testing.factories import VOXEL_NM, make_model

SIDE, DEPTH = 1024, 32
"""Side and number of the sections; with fewer, measuring the halo would not pay."""


@dataclass(frozen=True)
class Case:
    """A network of the comparison.

    Attributes:
        name: of the result.
        network: name in the registry.
        arguments: of the network's class.
        packaged: name of the packaged model, widened if the network is wider; empty for random weights.
        precision: of volseg; `auto` depends on the error, which random weights do not show.
        sections: number of volseg in a round, since its pipeline fills and drains; peers predict one.
        seconds: time limit: no round begins that would end later.
        peers: names of the peers.
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
    # Without map_overlap, which is slow at any width.
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
    """Write the sections of a stack, or generated ones, as Zarr; returns a description of the data."""
    if raw:
        stack = open_stack(Path(raw))
        depth, side_y, side_x = (min(n, limit) for n, limit in zip(stack.shape, (DEPTH, SIDE, SIDE), strict=True))
        voxels = stack.read(0, depth)[:, :side_y, :side_x]
    else:
        sections = make_phantom((2, SIDE, SIDE), seed=5).raw
        voxels = np.concatenate([sections] * (DEPTH // len(sections)))
    _, y, x = voxels.shape
    shard, chunk = (1, y, x), (1, 128 if y % 128 == 0 else y, 128 if x % 128 == 0 else x)
    target = create_volume(
        path, shape=voxels.shape, shard=shard, chunk=chunk, dtype=voxels.dtype.name, place=Place.of_nm(VOXEL_NM)
    )
    target.write(Box.of_shape(voxels.shape), voxels)
    return Path(raw).name if raw else "generated EM"


def case_model(case: Case, folder: Path) -> Path:
    """Return the model file of a case, written to the folder if it is not a packaged one."""
    path = folder / f"{case.name}.safetensors"
    if not case.packaged:
        return make_model(path, case.network, case.arguments)
    packaged = packaged_models()[case.packaged]
    width: int = case.arguments["width"]
    return packaged if read_card(packaged).card.arguments["width"] == width else widen_model(path, packaged, width)
