"""Maps for `seam_calls`: crops of the phantom and of real EM, networks, and their maps in one pass and in blocks."""

from __future__ import annotations

import os
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.array as da
import numpy as np
import tifffile
import torch

from volseg.blocks import BlockGrid, Box, ceil_to, to_zyx
from volseg.config.tolerance import Tolerance
from volseg.inference.optimize.optimize import optimized
from volseg.models import read_card, resolve_model
from volseg.models.model import build_card, load_model_file, save_model
from volseg.models.registry import build_network
from volseg.ops import Normalization, to_uint8
from volseg.phantom import make_phantom
from volseg.prediction.autotune.halo import choose_halo
from volseg.prediction.autotune.halo_curve import corner, errors_by_depth, sample_boxes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from volseg.blocks import Zyx

NETWORKS: dict[str, dict[str, Any]] = {
    "unet": {"width": 8, "depth": 2, "padded": True, "batch_norm": True, "dropout": 0.0, "out_channels": 1},
    "fusionnet": {"width": 4, "depth": 1},
}
"""Networks of small reach: a crop has many faces, and blocks that its edges do not touch."""
ISBI, ISBI_TEST, SNEMI = "isbi2012/train-volume.tif", "isbi2012/test-volume.tif", "snemi3d/train-input.tif"
_DATA = Path(os.environ.get("VOLSEG_DATA", Path(__file__).parents[3] / "shared" / "data"))
_PATCH, _BATCH, _RATE = 128, 4, 3e-3


def train_small(path: Path, kind: str, steps: int = 150) -> Path:
    """Train a network of small reach on a phantom and write its file; half a minute of one core."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng, phantom = np.random.default_rng(0), make_phantom((8, 320, 320), seed=100)
    grey, truth = normalised(phantom.raw), (phantom.labels == 0).astype(np.float32)
    network = build_network(kind, NETWORKS[kind]).train()
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, steps)
    for _ in range(steps):
        pairs = []
        for z, y, x in zip(*(rng.integers(0, n, _BATCH) for n in (8, 320 - _PATCH, 320 - _PATCH)), strict=True):
            place = (z, slice(y, y + _PATCH), slice(x, x + _PATCH))
            pairs.append(
                np.rot90(np.stack([grey[place] * rng.uniform(0.8, 1.2), truth[place]]), int(rng.integers(4)), (1, 2))
            )
        images, targets = torch.from_numpy(np.stack(pairs).astype(np.float32)).split(1, dim=1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    card = build_card(
        network,
        name=path.stem,
        kind=kind,
        arguments=NETWORKS[kind],
        normalization=Normalization("section", (128.0, 60.0)),
        voxel_nm=(30.0, 6.0, 6.0),
    )
    save_model(path, network, card)
    return path


@cache
def _network(model: str) -> Any:
    torch.set_num_threads(1)
    loaded = load_model_file(resolve_model(model))
    return loaded, optimized(loaded.network, "cpu", "float32")


def forward(model: str, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of normalised sections (z, y, x), whose sides are multiples of the network's stride."""
    loaded, network = _network(model)
    with torch.inference_mode():
        tiles = torch.from_numpy(np.ascontiguousarray(image))[:, None].to(memory_format=torch.channels_last)
        probabilities = [loaded.probabilities(network(tile))[:, 0].numpy() for tile in tiles.split(1)]
    return np.concatenate(probabilities)


def has_data(data: str) -> bool:
    """Whether real EM is there."""
    return bool(data) and (_DATA / data).is_file()


def crop(data: str, seed: int, side: int, sections: int) -> NDArray[np.uint8]:
    """A crop (z, y, x) of the phantom or of real EM, if that is there; contrast and brightness vary."""
    rng, shape = np.random.default_rng(seed), (sections, side, side)
    if has_data(data):
        volume = tifffile.imread(_DATA / data)
        start = [int(rng.integers(0, n - m + 1)) for n, m in zip(volume.shape, shape, strict=True)]
        raw = volume[tuple(slice(a, a + m) for a, m in zip(start, shape, strict=True))].astype(np.float32)
    else:
        raw = make_phantom(shape, seed=seed).raw.astype(np.float32)
    return np.clip(raw * rng.uniform(0.7, 1.0) + rng.uniform(0, 40), 1, 255).astype(np.uint8)


def normalised(raw: NDArray[Any]) -> NDArray[np.float32]:
    """Grey values normalised by section."""
    grey = raw.astype(np.float32)
    result: NDArray[np.float32] = (grey - grey.mean((1, 2), keepdims=True)) / grey.std((1, 2), keepdims=True)
    return result


def in_blocks(model: str, raw: NDArray[np.uint8], block: Zyx, halo: int, own: str = "") -> NDArray[np.uint8]:
    """Predict in blocks, whose context ends at the crop's edges.

    Args:
        model: file or name.
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
        result[write] = forward(model, image)[:, *inside]
    return to_uint8(result)


def overlapped(model: str, raw: NDArray[np.uint8], block: Zyx, halo: int) -> NDArray[np.uint8]:
    """Predict with `dask.array.map_overlap`."""
    grey = da.from_array(normalised(raw), chunks=block)
    depth = {0: 0, 1: halo, 2: halo}
    predicted = da.map_overlap(
        lambda image: forward(model, image), grey, depth=depth, boundary="reflect", dtype=np.float32, meta=grey
    )
    probability: NDArray[np.float32] = predicted.compute(scheduler="synchronous")
    return to_uint8(probability)


def auto_halo(model: str, raw: NDArray[np.uint8], block: Zyx) -> int:
    """The halo in y and x that auto measures on a crop: samples cut off, beside the map in one pass."""
    footprint, grey = read_card(resolve_model(model)).card.footprint, normalised(raw)
    grid = BlockGrid(raw.shape, raw.shape, Box.of_shape(raw.shape))
    exact, samples = to_uint8(forward(model, grey)), []
    for box in sample_boxes(grid, footprint):
        part = corner(box, footprint)
        cut = to_uint8(forward(model, grey[box.slices]))
        samples.append(errors_by_depth(cut[None], exact[part.slices][None], part.relative_to(box.start), footprint))
    core = (1, *(ceil_to(side, stride) for side, stride in zip(block[1:], footprint.stride[1:], strict=True)))
    return choose_halo(samples, Tolerance(), footprint, to_zyx(core)).halo[1]


def off_at_faces(probability: NDArray[np.uint8], exact: NDArray[np.uint8], block: Zyx) -> float:
    """Share of the voxels on both sides of faces in y and x that are more than 8 grey levels from the exact map."""
    apart = np.abs(probability.astype(int) - exact) > 8
    faces = [
        apart.take([i - 1, i], axis).ravel()
        for axis in (1, 2)
        for i in range(block[axis], apart.shape[axis], block[axis])
    ]
    return float(np.concatenate(faces).mean())
