"""Exports a model as ONNX: input is normalised grey values, output the probability of every class."""

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
from volseg.models.networks.layers import MaxUnpool2d
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
"""Maximum difference of probabilities from the torch network, whose float32 sums have another order."""

UNPOOL_EXEMPT_FRACTION = 0.005
"""Fraction of voxels that may differ more in a network with unpooling: if two voxels of a pooling cell are nearly
equal, rounding decides which of them is the maximum, and its position."""


class Probability(nn.Module):
    """A network with its activation: probability of every class (N, classes, ...) of normalised input."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.network = model.network
        self.softmax = model.card.activation == "softmax"

    def forward(self, raw: Tensor) -> Tensor:
        """Map (N, C, y, x) or (N, C, z, y, x) to probabilities."""
        output: Tensor = self.network(raw)
        return output.softmax(dim=1) if self.softmax else output.sigmoid()


def predict_probability(model: Model, normalized: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probability of every class (N, classes, ...) of a normalised input of any size that the network accepts."""
    with EXCLUSIVE, torch.inference_mode():
        result: NDArray[np.float32] = model.probabilities(model.network(torch.from_numpy(normalized))).numpy()
    return result


def exempt_fraction(model: Model) -> float:
    """Fraction of voxels that may differ by more than `TOLERANCE`."""
    return UNPOOL_EXEMPT_FRACTION if any(isinstance(module, MaxUnpool2d) for module in model.network.modules()) else 0.0


def max_difference(model: Model, output: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    """Maximum difference of probabilities, without the exempt fraction of voxels; infinite if the shapes differ."""
    if output.shape != expected.shape:
        return float("inf")
    return float(np.quantile(np.abs(output - expected), 1 - exempt_fraction(model), method="lower"))


def write_onnx(model: Model, path: Path, metadata: dict[str, Any]) -> None:
    """Write a model as ONNX; batch and spatial axes are dynamic.

    Args:
        model: to export.
        path: file to write.
        metadata: properties to store beside those of the card.

    Raises:
        ModelError: the network uses an operation that ONNX does not have.
    """
    with EXCLUSIVE, warnings.catch_warnings():
        # The newer exporter takes 60 times as long for the same graph. Sizes that tracing fixes, of which TracerWarning
        # warns, show when the file is run at another size.
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # type: ignore[attr-defined]
        try:
            torch.onnx.export(
                _exportable(Probability(model)),
                (torch.zeros(input_shape(model, 1, strides=1)),),
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
    proto = onnx.load_model(path)
    proto.producer_name, proto.producer_version = "volseg", __version__
    onnx.helper.set_model_props(proto, {key: _text(value) for key, value in {**card_fields(model), **metadata}.items()})
    onnx.checker.check_model(proto)
    onnx.save_model(proto, path)


def onnx_difference(model: Model, path: Path) -> float:
    """Run an ONNX file at sizes other than the traced one; returns the maximum difference from the torch network.

    Raises:
        ModelError: ONNX Runtime cannot run it, or it differs by more than `TOLERANCE`.
    """
    difference = 0.0
    for batch, strides in ((1, 0), (2, 3)):
        normalized = np.random.default_rng(strides).normal(size=input_shape(model, batch, strides)).astype(np.float32)
        difference = max(
            difference, max_difference(model, _run(path, normalized), predict_probability(model, normalized))
        )
    if not difference <= TOLERANCE:
        raise ModelError(
            f"the ONNX file differs from the network by {difference:.2g}, more than {TOLERANCE:g}; not exported"
        )
    return difference


def card_fields(model: Model) -> dict[str, Any]:
    """Metadata that users of the exported network need."""
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


def input_shape(model: Model, batch: int, strides: int) -> tuple[int, ...]:
    """Shape of the smallest input plus some strides along y, half as many along z, one more along x."""
    footprint = model.card.footprint
    counts = (strides // 2, strides, strides + 1)
    z, y, x = (n + count * s for n, count, s in zip(footprint.smallest, counts, footprint.stride, strict=True))
    # A 2-D network takes its sections as channels.
    return (batch, footprint.smallest[0], y, x) if footprint.dimensions == 2 else (batch, 1, z, y, x)


def spatial_axes(model: Model) -> Iterator[tuple[str, int]]:
    """Names of the spatial axes of the network's input, and their indices in (z, y, x)."""
    yield from [("z", 0), ("y", 1), ("x", 2)][3 - model.card.footprint.dimensions :]


def _axis_names(model: Model) -> dict[str, dict[int, str]]:
    margin = model.card.footprint.margin
    inputs, outputs = {0: "batch"}, {0: "batch"}
    for dimension, (name, axis) in enumerate(spatial_axes(model), start=2):
        inputs[dimension] = name
        outputs[dimension] = f"{name} - {2 * margin[axis]}" if margin[axis] else name
    return {INPUT: inputs, OUTPUT: outputs}


class _Scatter(nn.Module):
    """Max-unpooling by scatter, since ONNX's MaxUnpool indexes through the whole batch."""

    def __init__(self, pool: int) -> None:
        super().__init__()
        self.pool = pool

    def forward(self, pooled: Tensor, switches: Tensor) -> Tensor:
        batch, channels, rows, columns = pooled.shape
        rows, columns = rows * self.pool, columns * self.pool
        empty = torch.zeros(batch, channels, rows * columns, dtype=pooled.dtype)
        return empty.scatter(2, switches.flatten(2), pooled.flatten(2)).reshape(batch, channels, rows, columns)


def _exportable(network: nn.Module) -> nn.Module:
    """A copy without modules that the exporter does not support."""
    exportable = copy.deepcopy(network).eval()
    for name, module in list(exportable.named_modules()):
        if isinstance(module, MaxUnpool2d):
            exportable.set_submodule(name, _Scatter(module.pool))
    return exportable


def _run(path: Path, normalized: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        output: NDArray[np.float32] = session.run([OUTPUT], {INPUT: normalized})[0]
    except Exception as error:
        # Its errors have no common base class.
        raise ModelError(f"ONNX Runtime cannot run the ONNX file ({error}); not exported") from error
    return output


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
