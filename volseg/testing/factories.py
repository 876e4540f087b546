"""Makers of small volumes, networks and model files for tests."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from volseg.blocks import Box
from volseg.inference import Engine, Load
from volseg.models import read_card
from volseg.models.footprint import network_footprint
from volseg.models.model import Model, card_for, load_model_file, save_model
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS, NORMS
from volseg.models.registry import build_network
from volseg.ops import Normalization, to_uint8
from volseg.prediction.autotune.probe import ProbeSpec
from volseg.storage import open_volume, volume_statistics
from volseg.storage.target import create_volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

VOXEL_NM = (30.0, 6.0, 6.0)


def blobs(shape: tuple[int, int, int], seed: int = 0, dtype: str = "uint8") -> NDArray[Any]:
    """Smooth noise over the whole range of grey values, brightness differing between sections."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), (0, 2, 2)) * 400 + rng.normal(size=(shape[0], 1, 1)) * 20 + 128
    voxels: NDArray[Any] = np.clip(smooth + rng.normal(size=shape) * 8, 1, 255).astype(dtype)
    return voxels


def make_volume(
    path: Path,
    shape: tuple[int, int, int],
    *,
    voxels: NDArray[Any] | None = None,
    voxel_nm: tuple[float, float, float] = VOXEL_NM,
    chunk: tuple[int, int, int] = (2, 32, 32),
) -> Path:
    """Write an OME-Zarr volume of blobs, or of given voxels."""
    voxels = blobs(shape) if voxels is None else voxels
    target = create_volume(path, shape=shape, shard=chunk, chunk=chunk, dtype=voxels.dtype.name, voxel_nm=voxel_nm)
    target.write(Box.of_shape(shape), voxels)
    return path


def random_network(kind: str, arguments: dict[str, Any], seed: int = 0) -> nn.Module:
    """A network with random weights and batch norms as a training leaves them: statistics of real activations.

    Biases keep most ReLUs open, as they are in a trained network. With purely random ones a deep stack of batch norms
    is chaotic: one FusionNet of depth 4 differed from itself in float64 by 7e-4 (trained: 1e-5, so: 2e-6).
    """
    torch.manual_seed(seed)
    network = build_network(kind, arguments)
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    for norm in norms:
        norm.momentum = None  # a plain mean over all that it sees
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.normal_(norm.bias, std=0.2)
    opened = CONVOLUTIONS + (DECONVOLUTIONS if kind == "deconvnet" else ())
    for convolution in network.modules():
        if norms and isinstance(convolution, opened) and convolution.bias is not None:
            nn.init.constant_(convolution.bias, 2.0)
    if norms and next(network.parameters()).device.type != "meta":
        network.train()
        with torch.no_grad():
            network(_seen_in_training(network))
    return network.eval()


def _seen_in_training(network: nn.Module) -> torch.Tensor:
    """Two tiles of blobs, of a size that the network takes."""
    footprint = network_footprint(network)
    z, y, x = footprint.input_shape((1, 128, 128) if footprint.dimensions == 2 else (4, 32, 32), footprint.margin)
    tiles = torch.from_numpy(blobs((2 * z, y, x)).astype(np.float32) / 60 - 2).reshape(2, z, y, x)
    return tiles if footprint.dimensions == 2 else tiles[:, None]


def make_model(
    path: Path,
    kind: str = "fusionnet",
    arguments: dict[str, Any] | None = None,
    *,
    mode: Any = "section",
    seed: int = 0,
    **more: Any,
) -> Path:
    """Write a model file with random weights; `more` are fields of its card."""
    arguments = {"width": 4, "depth": 2} if arguments is None else arguments
    network = random_network(kind, arguments, seed)
    card = card_for(
        network,
        name=path.stem,
        kind=kind,
        arguments=arguments,
        normalization=Normalization(mode, (128.0, 60.0)),
        voxel_nm=VOXEL_NM,
        **more,
    )
    save_model(path, network, card)
    return path


def sampled_for(raw: Path, model: Path, precision: Any = "float32") -> ProbeSpec:
    """What a worker needs to measure a network on a volume; memory is no matter."""
    header, volume = read_card(model), open_volume(str(raw))
    statistics = volume_statistics(volume, header.card.normalization)
    engine, load = Engine("cpu", precision, 1, 1), Load(1, precision, 1, 1, "cpu")
    return ProbeSpec(
        volume.location, header.path, header.digest, header.card.footprint, statistics, engine, ("membrane",), load,
        (64 << 30, 0),
    )  # fmt: skip


def whole_pass(
    model: Model,
    raw: NDArray[Any],
    classes: tuple[str, ...] = ("membrane",),
    turns: Sequence[tuple[int, bool]] = ((0, False),),
    dtype: torch.dtype = torch.float64,
) -> NDArray[np.float64]:
    """The truth of law 1: one pass over the whole mirrored volume, by nothing of volseg's.

    Mirrors by far more than the reach, so that the halo that volseg chooses is not what makes them agree.

    Args:
        model: the network.
        raw: grey values (z, y, x).
        classes: which to give; one gives (z, y, x), several (classes, z, y, x).
        turns: quarter turns of the section, and whether it is flipped along x after them; their mean is given.
        dtype: what the network computes in.
    """
    network = copy.deepcopy(model.network).to(dtype)
    estimates = [_one_pass(replace(model, network=network), raw, classes, *turn) for turn in turns]
    mean: NDArray[np.float64] = np.stack(estimates).mean(axis=0)
    return mean[0] if len(classes) == 1 else mean


def float32_tolerance(
    truth: NDArray[np.float64],
    model: Model,
    raw: NDArray[Any],
    classes: tuple[str, ...] = ("membrane",),
    turns: Sequence[tuple[int, bool]] = ((0, False),),
    share: float = 1.0,
) -> float:
    """How far from the truth a result in float32 may be, whatever the instruction set and the order of its sums.

    Args:
        truth: `whole_pass` in float64, with the same arguments.
        model: as for the truth.
        raw: as for the truth.
        classes: as for the truth.
        turns: as for the truth.
        share: of the voxels that are looked at, those that are off the least.
    """
    return rounding_allowed(whole_pass(model, raw, classes, turns, torch.float32), truth, share)


def rounding_allowed(plain: Any, exact: Any, share: float = 1.0) -> float:
    """Four times what a result in float32 is off from the one in float64, and not less than four times float32's step.

    Over the networks of these tests, volseg's results were off by 0.3 to 2.2 times what the plain network's were.

    Args:
        plain: a network's result, computed in float32.
        exact: the same in float64.
        share: of the numbers that are looked at, those that are off the least.
    """
    off = np.abs(np.asarray(plain, np.float64) - np.asarray(exact, np.float64))
    return 4 * max(float(np.quantile(off, share)), float(np.finfo(np.float32).eps))


def _one_pass(
    model: Model, raw: NDArray[Any], classes: tuple[str, ...], quarters: int, flipped: bool
) -> NDArray[np.float64]:
    footprint = model.card.footprint
    before, behind = [], []
    for n, reach, stride, margin, smallest in zip(
        raw.shape, footprint.reach_before, footprint.stride, footprint.margin, footprint.smallest, strict=True
    ):
        around = margin or -(-(reach + 1) // stride) * stride + stride
        # Valid sizes only: some more behind does not move the pooling grid.
        behind.append(around + (-(n + 2 * around - smallest)) % stride)
        before.append(around)
    if footprint.dimensions == 2:
        before[0] = behind[0] = footprint.margin[0]
    seen = np.pad(model.normalize(raw), list(zip(before, behind, strict=True)), mode="reflect")
    turned = np.rot90(seen, quarters, axes=(1, 2))
    turned = np.ascontiguousarray(turned[:, :, ::-1] if flipped else turned)
    with torch.inference_mode():
        if footprint.dimensions == 2:
            sections = footprint.smallest[0]
            made = np.stack(
                [_classes(model, turned[None, z : z + sections], classes)[0] for z in range(raw.shape[0])], axis=1
            )
        else:
            made = _classes(model, turned[None, None], classes)[0]
    made = np.rot90(made[..., ::-1] if flipped else made, -quarters, axes=(2, 3))
    first = [b - m for b, m in zip(before, footprint.margin, strict=True)]
    return made[:, *(slice(a, a + n) for a, n in zip(first, raw.shape, strict=True))]


def _classes(model: Model, tile: NDArray[np.float32], classes: tuple[str, ...]) -> NDArray[np.float64]:
    dtype = next(model.network.parameters()).dtype
    output: torch.Tensor = model.network(torch.from_numpy(tile).to(dtype))
    made = output.softmax(dim=1) if model.card.activation == "softmax" else output.sigmoid()
    return made[:, model.card.channels_of(classes)].double().numpy()


def stored(path: Path | str) -> NDArray[Any]:
    """All voxels of a volume."""
    volume = open_volume(str(path))
    return volume.read(Box.of_shape(volume.shape))


def whole_pass_stored(model_file: Path, raw_path: Path) -> NDArray[np.uint8]:
    """The whole pass of a model file over a stored volume, as bytes."""
    return to_uint8(whole_pass(load_model_file(model_file), stored(raw_path)).astype(np.float32))
