"""A model as an ONNX file: normalised grey values in, probability of every class out."""

from __future__ import annotations

import copy
import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from volseg.errors import ModelError
from volseg.models.networks.layers import Unpool
from volseg.models.receptive_field import EXCLUSIVE
from volseg.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from volseg.models.model import Model

OPSET = 17
INPUT, OUTPUT = "raw", "probability"
TOLERANCE = 1e-4
"""How far probabilities may differ from those of the torch network: its float32 sums are made in another order."""

SWITCHED = 0.005
"""Share of voxels that may differ by more in a network that unpools by switches: where two voxels of a pooling's cell
are all but equal, the last bit decides which of them is put back, and where."""


class Probability(nn.Module):
    """A network with its activation: probability of every class (N, classes, ...) of normalised input."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.softmax = model.card.activation == "softmax"

    def forward(self, raw: Tensor) -> Tensor:
        """Map (N, C, y, x) or (N, C, z, y, x)."""
        output: Tensor = self.network(raw)
        return output.softmax(dim=1) if self.softmax else output.sigmoid()


def probability(model: Model, normalized: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of every class, of a normalised input of any size that the network takes."""
    with EXCLUSIVE, torch.inference_mode():
        made: NDArray[np.float32] = model.probabilities(model.network(torch.from_numpy(normalized))).numpy()
    return made


def exempt(model: Model) -> float:
    """The share of voxels that may differ by more than `TOLERANCE`."""
    return SWITCHED if any(isinstance(module, Unpool) for module in model.network.modules()) else 0.0


def difference(model: Model, made: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """The largest difference of probabilities, but for the share of voxels that is exempt."""
    if made.shape != expected.shape:
        return float("inf")
    return float(np.quantile(np.abs(made - expected), 1 - exempt(model), method="lower"))


def write_onnx(model: Model, path: Path, about: dict[str, Any]) -> None:
    """Write a model as ONNX; batch and spatial axes take any size that the network takes.

    Args:
        model: the model.
        path: file to write.
        about: what to say of it beside what its card says.

    Raises:
        ModelError: the network uses an operation that ONNX does not have.
    """
    with EXCLUSIVE, warnings.catch_warnings():
        # The newer exporter takes 60 times as long for the same graph. Sizes that tracing froze, which is what
        # TracerWarning is about, would show when the file is run at another size.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        try:
            torch.onnx.export(
                _exportable(Probability(model)),
                (torch.zeros(input_shape(model, 1, beyond=1)),),
                path,
                input_names=[INPUT],
                output_names=[OUTPUT],
                dynamic_axes=_axis_names(model),
                opset_version=OPSET,
                dynamo=False,
            )
        except (RuntimeError, TypeError, ValueError) as error:
            first = str(error).strip().partition("\n")[0]
            raise ModelError(
                f"network {model.card.network!r} uses an operation that ONNX does not have ({first}); "
                "predict with volseg itself, which needs no export"
            ) from error
    made = onnx.load_model(path)
    made.producer_name, made.producer_version = "volseg", __version__
    onnx.helper.set_model_props(made, {key: _text(value) for key, value in {**card_facts(model), **about}.items()})
    onnx.checker.check_model(made)
    onnx.save_model(made, path)


def onnx_difference(model: Model, path: Path) -> float:
    """Run an ONNX file at another size than it was made with; the largest difference from the torch network.

    Raises:
        ModelError: ONNX Runtime cannot run it, or it differs by more than `TOLERANCE`.
    """
    worst = 0.0
    for batch, beyond in ((1, 0), (2, 3)):
        normalized = np.random.default_rng(beyond).normal(size=input_shape(model, batch, beyond)).astype(np.float32)
        worst = max(worst, difference(model, _run(path, normalized), probability(model, normalized)))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"the ONNX file differs from the network by {worst:.2g}, more than {TOLERANCE:g}; not exported"
        )
    return worst


def card_facts(model: Model) -> dict[str, Any]:
    """What whoever runs the network needs to know of its input and output."""
    card = model.card
    return {
        "name": card.name,
        "digest": model.digest,
        "network": card.network,
        "arguments": card.arguments,
        "classes": card.classes,
        "activation": card.activation,
        "voxel_nm": card.voxel_nm,
        "smallest": card.footprint.smallest,
        "stride": card.footprint.stride,
        "margin": card.footprint.margin,
        "halo": card.footprint.exact_halo(),
        "normalization": {
            "mode": card.normalization.mode,
            "training": card.normalization.training,
            "dtype": card.normalization.dtype,
        },
        "license": card.license,
    }


def input_shape(model: Model, batch: int, beyond: int) -> tuple[int, ...]:
    """The smallest input, and `beyond` strides more: half of them along z, one more along x."""
    footprint = model.card.footprint
    strides = (beyond // 2, beyond, beyond + 1)
    z, y, x = (n + more * by for n, more, by in zip(footprint.smallest, strides, footprint.stride, strict=True))
    # A 2-D network takes its sections as channels.
    return (batch, footprint.smallest[0], y, x) if footprint.dimensions == 2 else (batch, 1, z, y, x)


def spatial_axes(model: Model) -> Iterator[tuple[str, int]]:
    """Names of the axes that the network's input has beside batch and channel, and their places in (z, y, x)."""
    yield from [("z", 0), ("y", 1), ("x", 2)][3 - model.card.footprint.dimensions :]


def _axis_names(model: Model) -> dict[str, dict[int, str]]:
    margin = model.card.footprint.margin
    taken, made = {0: "batch"}, {0: "batch"}
    for place, (name, axis) in enumerate(spatial_axes(model), start=2):
        taken[place] = name
        made[place] = f"{name} - {2 * margin[axis]}" if margin[axis] else name
    return {INPUT: taken, OUTPUT: made}


class _Scatter(nn.Module):
    """A max-unpooling in operations that ONNX has: its own MaxUnpool counts places through the whole batch."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, pooled: Tensor, switches: Tensor) -> Tensor:
        batch, channels, rows, columns = pooled.shape
        rows, columns = rows * self.pool, columns * self.pool
        empty = torch.zeros(batch, channels, rows * columns, dtype=pooled.dtype)
        return empty.scatter(2, switches.flatten(2), pooled.flatten(2)).reshape(batch, channels, rows, columns)


def _exportable(network: nn.Module) -> nn.Module:
    """A copy in which nothing is left that the exporter does not know."""
    replaced = copy.deepcopy(network).eval()
    for name, module in list(replaced.named_modules()):
        if isinstance(module, Unpool):
            replaced.set_submodule(name, _Scatter(module.pool))
    return replaced


def _run(path: Path, normalized: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        made: NDArray[np.float32] = session.run([OUTPUT], {INPUT: normalized})[0]
    except Exception as error:
        # Its errors have no common class of their own.
        raise ModelError(f"ONNX Runtime does not run the ONNX file ({error}); not exported") from error
    return made


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
