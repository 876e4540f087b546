"""Which maps are called seamed: `python -m tests.faults.seam_calls` makes a hundred and prints what was said of each.

Packaged networks on crops of the phantom and, where they are, of real EM. A crop is predicted in one pass, in blocks
with half of auto's halo (128 voxels for these networks and data) or less, and in blocks that are normalised by their
own voxels. The statistic sees the map alone, as if another tool had written it.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
import torch

from volseg.inference.optimize.optimize import optimized
from volseg.models import resolve_model
from volseg.models.model import load_model_file
from volseg.ops.seam_scores import score_faces, search_faces
from volseg.ops.seams import grey_level, plane_steps
from volseg.phantom import make_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

SECTIONS = 6
SIDES = (288, 320, 272, 304)
PERIODS = (96, 128, 80, 112, 64)
HALOS = (32, 16, 48, 64)
_MARGIN = 64
"""Context of blocks that are normalised by their own voxels."""
_DATA = Path(os.environ.get("VOLSEG_DATA", Path(__file__).parents[3] / "shared" / "data"))
_CROPS = (
    ("fusionnet-isbi2012", "isbi2012/train-volume.tif"),
    ("fusionnet-snemi3d", "snemi3d/train-input.tif"),
    ("fusionnet-snemi3d", ""),
    ("fusionnet-isbi2012", "isbi2012/test-volume.tif"),
    ("fusionnet-isbi2012", ""),
)


@dataclass(frozen=True)
class Call:
    """What was said of one map.

    Attributes:
        kind: `halo`, `normalised` or `good`.
        data: of the crop; empty for the phantom.
        seed: of the crop.
        block: shape (z, y, x).
        halo: of its blocks in y and x; -1 for one pass.
        off: share of the voxels at faces that are more than 8 grey levels from one pass.
        score: of the faces.
        excess: of their steps.
        seamed: whether they are called seams, if the block shape is known.
        searched: whether seams are called if it is not.
        period: that was found by the search.
    """

    kind: str
    data: str
    seed: int
    block: tuple[int, int, int]
    halo: int
    off: float
    score: float
    excess: float
    seamed: bool
    searched: bool
    period: int


@cache
def _network(name: str) -> Any:
    torch.set_num_threads(1)
    model = load_model_file(resolve_model(name))
    return model, optimized(model.network, "cpu", "float32")


def forward(name: str, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of normalised sections (z, y, x)."""
    model, network = _network(name)
    with torch.inference_mode():
        tiles = torch.from_numpy(np.ascontiguousarray(image))[:, None].to(memory_format=torch.channels_last)
        probabilities: NDArray[np.float32] = model.probabilities(network(tiles))[:, 0].numpy()
    return probabilities


def crop(data: str, seed: int, side: int, sections: int = SECTIONS) -> NDArray[np.uint8]:
    """A crop of the phantom or of real EM, if that is there; contrast and brightness vary."""
    rng, shape = np.random.default_rng(seed), (sections, side, side)
    if data and (_DATA / data).is_file():
        volume = tifffile.imread(_DATA / data)
        start = [int(rng.integers(0, n - m + 1)) for n, m in zip(volume.shape, shape, strict=True)]
        raw = volume[tuple(slice(a, a + m) for a, m in zip(start, shape, strict=True))].astype(np.float32)
    else:
        raw = make_phantom(shape, seed=seed).raw.astype(np.float32)
    return np.clip(raw * rng.uniform(0.7, 1.0) + rng.uniform(0, 40), 1, 255).astype(np.uint8)


def normalised(raw: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Grey values normalised by section."""
    grey = raw.astype(np.float32)
    result: NDArray[np.float32] = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
    return result


def in_blocks(
    name: str, raw: NDArray[np.uint8], block: tuple[int, int, int], halo: int, own: str = ""
) -> NDArray[np.uint8]:
    """Predict in blocks, whose context ends at the crop's edges.

    Args:
        name: of the model.
        raw: the crop.
        block: shape (z, y, x).
        halo: voxels in y and x.
        own: normalise a block by its own voxels, those that it reads ("read") or writes ("write"); else by section.
    """
    grey, result = normalised(raw), np.empty(raw.shape, np.float32)
    for z, y, x in product(*(range(0, n, b) for n, b in zip(raw.shape, block, strict=True))):
        write = tuple(slice(a, min(a + b, n)) for a, b, n in zip((z, y, x), block, raw.shape, strict=True))
        first = [max(s.start - halo, 0) for s in write[1:]]
        stop = [min(s.stop + halo, n) for s, n in zip(write[1:], raw.shape[1:], strict=True)]
        read = (write[0], slice(first[0], stop[0]), slice(first[1], stop[1]))
        image = grey[read]
        if own:
            voxels = raw[read if own == "read" else write].astype(np.float32)
            image = (raw[read].astype(np.float32) - voxels.mean()) / voxels.std()
        inside = tuple(slice(s.start - a, s.stop - a) for s, a in zip(write[1:], first, strict=True))
        result[write] = forward(name, image)[:, *inside]
    return to_bytes(result)


def to_bytes(probability: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities as a map stores them."""
    stored: NDArray[np.uint8] = np.rint(probability * 255).astype(np.uint8)
    return stored


def off_at_faces(probability: NDArray[np.uint8], exact: NDArray[np.uint8], block: tuple[int, int, int]) -> float:
    """Share of the voxels on both sides of faces in y and x that are more than 8 grey levels from the exact map."""
    apart = np.abs(probability.astype(int) - exact) > 8
    faces = [
        apart.take([i - 1, i], axis).ravel()
        for axis in (1, 2)
        for i in range(block[axis], apart.shape[axis], block[axis])
    ]
    return float(np.concatenate(faces).mean())


def call(probability: NDArray[Any], block: tuple[int, int, int]) -> tuple[float, float, bool, bool, int]:
    """Score, excess, whether it is seamed, whether it is without the block shape, and the period found so."""
    level = grey_level(probability)
    windows = [plane_steps(probability, axis, level=level) for axis in (0, 1, 2)]
    known, found = score_faces(windows, block), search_faces(windows, probability.shape)
    best = found[0]
    return (
        known[0].score, known[0].excess, any(one.is_seam for one in known), any(one.is_seam for one in found),
        best.period[0],
    )  # fmt: skip


def calls_of(
    seed: int, kinds: tuple[str, ...] = ("good", "halo", "normalised"), side: int = 0, period: int = 0
) -> list[Call]:
    """Make the maps of one crop, of a size and with blocks that its seed chooses if none are given, and call each."""
    name, data = _CROPS[seed % len(_CROPS)]
    side, period = side or SIDES[seed % len(SIDES)], period or PERIODS[seed // 2 % len(PERIODS)]
    halo = HALOS[seed // 3 % len(HALOS)]
    # The smaller the errors, the more of a map shows them; a real one is far larger.
    sections = SECTIONS if halo < 48 else 2 * SECTIONS
    block = (sections, period, period)
    raw = crop(data, 5000 + seed, side, sections)
    exact = to_bytes(forward(name, normalised(raw)))
    maps: list[tuple[str, tuple[int, int, int], int, NDArray[np.uint8]]] = []
    if "good" in kinds:
        maps.append(("good", block, -1, exact))
    if "halo" in kinds:
        maps.append(("halo", block, halo, in_blocks(name, raw, block, halo)))
    if "normalised" in kinds:
        block = ((1, 2, 3, sections)[seed % 4], period, period)
        own = ("read", "write")[seed // 2 % 2]
        maps.append(("normalised", block, _MARGIN, in_blocks(name, raw, block, _MARGIN, own)))
    return [
        Call(kind, data, seed, block, halo, off_at_faces(volume, exact, block), *call(volume, block))
        for kind, block, halo, volume in maps
    ]


def main(path: str = "") -> None:
    """Make all maps, print what was said of each, and write them as JSON."""
    tasks = [*((seed, ("good", "halo", "normalised")) for seed in range(26)), *((s, ("good",)) for s in range(26, 42))]
    calls: list[Call] = []
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for some in pool.map(calls_of, *zip(*tasks, strict=True)):
            calls += some
            for one in some:
                print(json.dumps(asdict(one)), flush=True)  # noqa: T201
    if path:
        Path(path).write_text(json.dumps([asdict(one) for one in calls]))
    for kind in ("good", "halo", "normalised"):
        some = [one for one in calls if one.kind == kind and (kind == "good" or one.off >= 0.01)]
        counts = Counter((one.seamed, one.searched) for one in some)
        print(kind, len(some), dict(counts), min(o.score for o in some), max(o.score for o in some))  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
