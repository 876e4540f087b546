"""Small volumes, networks and model files for tests and benchmarks, and the whole-volume pass to compare with."""

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
from volseg.models.model import Model, build_card, load_model_file, save_model
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS, NORMS
from volseg.models.registry import build_network
from volseg.ops import Normalization, to_uint8
from volseg.prediction.autotune.probe import ProbeSpec
from volseg.storage import Place, VolumeRef, create_target, open_volume, read_record, slab_statistics
from volseg.storage.create import create_volume

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.inference import Precision
    from volseg.ops import Statistics
    from volseg.storage import Readable

VOXEL_NM = (30.0, 6.0, 6.0)


def blobs(shape: tuple[int, int, int], seed: int = 0, dtype: str = "uint8") -> NDArray[Any]:
    """Smooth noise over the whole range of grey values, with a brightness of its own in each section; (z, y, x)."""
    rng = np.random.default_rng(seed)
    smooth = gaussian_filter(rng.normal(size=shape), (0, 2, 2)) * 400 + rng.normal(size=(shape[0], 1, 1)) * 20 + 128
    voxels: NDArray[Any] = np.clip(smooth + rng.normal(size=shape) * 8, 1, 255).astype(dtype)
    return voxels


def stripes(shape: tuple[int, int, int], seed: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Dark curved lines on noise, and a mask of the lines; a small network learns them in seconds."""
    rng = np.random.default_rng(seed)
    field = gaussian_filter(rng.normal(size=shape), (0, 8, 8))
    membrane = np.abs(field) < 0.25 * field.std()
    raw = np.where(membrane, 70, 150) + rng.normal(size=shape) * 15
    return np.clip(raw, 1, 255).astype(np.uint8), membrane


def make_volume(
    path: Path,
    shape: tuple[int, int, int],
    *,
    voxels: NDArray[Any] | None = None,
    voxel_nm: tuple[float, float, float] | None = VOXEL_NM,
    translation_nm: tuple[float, float, float] | None = None,
    chunk: tuple[int, int, int] = (2, 32, 32),
) -> Path:
    """Write an OME-Zarr volume, of blobs by default."""
    voxels = blobs(shape) if voxels is None else voxels
    place = Place.of_nm(voxel_nm, translation_nm)
    target = create_volume(path, shape=shape, shard=chunk, chunk=chunk, dtype=voxels.dtype.name, place=place)
    target.write(Box.of_shape(shape), voxels)
    target.remove_partials()
    return path


def random_network(kind: str, arguments: dict[str, Any], seed: int = 0) -> nn.Module:
    """Build a network with random weights whose batch norms hold statistics of activations, as after training.

    Positive biases keep most ReLUs open, as in a trained network. With purely random ones a deep stack of batch norms
    amplifies rounding: a FusionNet of depth 4 differs from itself in float64 by 7e-4 (trained: 1e-5, like this: 2e-6).

    Args:
        kind: name in the registry.
        arguments: of the network's class.
        seed: of the weights.
    """
    torch.manual_seed(seed)
    network = build_network(kind, arguments)
    norms = [module for module in network.modules() if isinstance(module, NORMS)]
    for norm in norms:
        norm.momentum = None  # the plain mean over all batches
        nn.init.uniform_(norm.weight, 0.5, 1.0)
        nn.init.normal_(norm.bias, std=0.2)
    biased = CONVOLUTIONS + (DECONVOLUTIONS if kind == "deconvnet" else ())
    for convolution in network.modules():
        if norms and isinstance(convolution, biased) and convolution.bias is not None:
            nn.init.constant_(convolution.bias, 2.0)
    if norms and next(network.parameters()).device.type != "meta":
        network.train()
        with torch.no_grad():
            network(_normalized_tiles(network))
    return network.eval()


def _normalized_tiles(network: nn.Module) -> torch.Tensor:
    """Two normalised tiles of blobs, of a size that the network takes."""
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
    **card_fields: Any,
) -> Path:
    """Write a model file with random weights.

    Args:
        path: of the file; its stem is the model's name.
        kind: name of the network in the registry.
        arguments: of the network's class; a FusionNet of width 4 and depth 2 by default.
        mode: of the normalisation.
        seed: of the weights.
        card_fields: further fields of the card.
    """
    arguments = {"width": 4, "depth": 2} if arguments is None else arguments
    network = random_network(kind, arguments, seed)
    card = build_card(
        network,
        name=path.stem,
        kind=kind,
        arguments=arguments,
        normalization=Normalization(mode, (128.0, 60.0)),
        voxel_nm=VOXEL_NM,
        **card_fields,
    )
    save_model(path, network, card)
    return path


def constants_of(volume: Readable, normalization: Normalization) -> Statistics:
    """The constants of a whole volume, read section by section."""
    if normalization.scope == "training":
        return (normalization.training,)
    box = Box.of_shape(volume.shape)
    slab = slab_statistics(volume, (0, volume.shape[0]), (normalization.mode,), box)
    return normalization.constants_of(slab.moments[0])


def probe_spec(raw: Path, model: Path, precision: Precision = "float32") -> ProbeSpec:
    """Describe how a worker probes a model on a volume, with 64 GiB of memory."""
    header, volume = read_card(model), open_volume(str(raw))
    statistics = constants_of(volume, header.card.normalization)
    engine, load = Engine("cpu", precision, 1, 1), Load(1, precision, 1, 1, "cpu")
    return ProbeSpec(
        VolumeRef(volume.location), header.path, header.digest, header.card.footprint, statistics, engine,
        ("membrane",), load, (64 << 30, 0),
    )  # fmt: skip


def whole_pass(
    model: Model,
    raw: NDArray[Any],
    classes: tuple[str, ...] = ("membrane",),
    turns: Sequence[tuple[int, bool]] = ((0, False),),
    dtype: torch.dtype = torch.float64,
) -> NDArray[np.float64]:
    """Predict a whole mirrored volume in one pass, without volseg's blocks, tiles and optimisations.

    Mirrors by more than the reach, so that agreement does not depend on the halo that volseg uses.

    Args:
        model: a loaded model; its network is not changed.
        raw: grey values (z, y, x).
        classes: names of output channels.
        turns: orientations to average: quarter turns of the section, then whether it is flipped along x.
        dtype: of the computation.

    Returns:
        Probabilities (z, y, x) of one class, (classes, z, y, x) of several.
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
    fraction: float = 1.0,
) -> float:
    """Largest error of float32 predictions to accept, for any instruction set and order of sums.

    Args:
        truth: `whole_pass` in float64, with the same arguments.
        model: as for the truth.
        raw: as for the truth.
        classes: as for the truth.
        turns: as for the truth.
        fraction: of the voxels, those with the smallest error, that the tolerance is for.
    """
    return rounding_tolerance(whole_pass(model, raw, classes, turns, torch.float32), truth, fraction)


def rounding_tolerance(plain: Any, exact: Any, fraction: float = 1.0) -> float:
    """Four times the error of a plain float32 result, at least four times the machine epsilon of float32.

    volseg's results have 0.3 to 2.2 times the error of the plain network, over the networks of the tests.

    Args:
        plain: a network's result, computed in float32.
        exact: the same in float64.
        fraction: of the numbers, those with the smallest error, that the tolerance is for.
    """
    error = np.abs(np.asarray(plain, np.float64) - np.asarray(exact, np.float64))
    return 4 * max(float(np.quantile(error, fraction)), float(np.finfo(np.float32).eps))


def _one_pass(
    model: Model, raw: NDArray[Any], classes: tuple[str, ...], quarters: int, flipped: bool
) -> NDArray[np.float64]:
    footprint = model.card.footprint
    before, behind = [], []
    for n, reach, stride, margin, smallest in zip(
        raw.shape, footprint.reach_before, footprint.stride, footprint.margin, footprint.smallest, strict=True
    ):
        halo = margin or -(-(reach + 1) // stride) * stride + stride
        # Sizes that the network takes: more context behind does not shift the pooling grid.
        behind.append(halo + (-(n + 2 * halo - smallest)) % stride)
        before.append(halo)
    if footprint.dimensions == 2:
        before[0] = behind[0] = footprint.margin[0]
    padded = np.pad(model.normalize(raw), list(zip(before, behind, strict=True)), mode="reflect")
    turned = np.rot90(padded, quarters, axes=(1, 2))
    turned = np.ascontiguousarray(turned[:, :, ::-1] if flipped else turned)
    with torch.inference_mode():
        if footprint.dimensions == 2:
            sections = footprint.smallest[0]
            tiles = [turned[None, z : z + sections] for z in range(raw.shape[0])]
            output = np.stack([_probabilities(model, tile, classes)[0] for tile in tiles], axis=1)
        else:
            output = _probabilities(model, turned[None, None], classes)[0]
    output = np.rot90(output[..., ::-1] if flipped else output, -quarters, axes=(2, 3))
    first = [b - m for b, m in zip(before, footprint.margin, strict=True)]
    return output[:, *(slice(a, a + n) for a, n in zip(first, raw.shape, strict=True))]


def _probabilities(model: Model, tile: NDArray[np.float32], classes: tuple[str, ...]) -> NDArray[np.float64]:
    dtype = next(model.network.parameters()).dtype
    output: torch.Tensor = model.network(torch.from_numpy(tile).to(dtype))
    probability = output.softmax(dim=1) if model.card.activation == "softmax" else output.sigmoid()
    return probability[:, model.card.channels_of(classes)].double().numpy()


def read_volume(path: Path | str) -> NDArray[Any]:
    """Read all voxels of a volume, (z, y, x)."""
    volume = open_volume(str(path))
    return volume.read(Box.of_shape(volume.shape))


def create_target_like(target: Path, first: Path) -> None:
    """Create an empty target with the run record of another."""
    record = read_record(first)
    create_target(target, record, record.place)


def whole_pass_bytes(model_file: Path, raw_path: Path) -> NDArray[np.uint8]:
    """Predict a stored volume with `whole_pass`, rounded to uint8."""
    return to_uint8(whole_pass(load_model_file(model_file), read_volume(raw_path)).astype(np.float32))
