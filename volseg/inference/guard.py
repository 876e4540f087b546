"""Checks a network on a worker before its first block, on one small tile.

norms folded, float32                reference; is any activation NaN or infinite?
norms folded, the run's precision    how much that precision rounds: the scale of what is tolerated
optimised, plain                     is any activation NaN or infinite, and how near is the largest to the limit?
optimised, ready (packed, fused)     does it agree with the reference?

All four treat the border of their input alike, so a tile with little context will do.
"""

from __future__ import annotations

from math import isfinite
from typing import TYPE_CHECKING

import torch
from torch.func import functional_call

from volseg.inference.executor import forward_executor
from volseg.inference.finite import read_activations
from volseg.inference.network_check import MAX_ERROR_RATIO, MIN_TOLERANCE, NetworkCheck
from volseg.inference.optimize.fold_batch_norm import fold_batch_norm
from volseg.inference.optimize.optimize import DTYPES, optimized, specialized
from volseg.inference.predictor import disable_tf32
from volseg.models.receptive_field import EXCLUSIVE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, fx

    from volseg.blocks import Tiling
    from volseg.inference.settings import Engine
    from volseg.models.model import Model


def check_network(
    model: Model, normalized: NDArray[np.float32], tiling: Tiling, engine: Engine, kind: str
) -> NetworkCheck:
    """Check a network in this process.

    Args:
        model: in main memory.
        normalized: input of one tile, (z, y, x).
        tiling: of the tile.
        engine: how the network is run.
        kind: of this worker.
    """
    return forward_executor.submit(lambda: _check(model, normalized, tiling, engine, kind)).result()


def _check(model: Model, normalized: NDArray[np.float32], tiling: Tiling, engine: Engine, kind: str) -> NetworkCheck:
    flat, precision = tiling.footprint.dimensions == 2, engine.precision
    axes = slice(1 if flat else 0, 3)
    core = [(a, b - 1) for a, b in zip(tiling.crop.start, tiling.crop.stop, strict=True)][axes]
    with EXCLUSIVE, torch.inference_mode():
        if engine.device == "cuda":
            disable_tf32()
        if engine.threads:
            torch.set_num_threads(engine.threads)
        tile = torch.from_numpy(normalized).to(engine.device)
        tiles = tile[None] if flat else tile[None, None]
        layout = torch.channels_last if flat else torch.channels_last_3d
        lower = tiles.to(DTYPES[precision]).contiguous(memory_format=layout)
        folded = fold_batch_norm(model.network).to(engine.device)
        trained, whole = read_activations(folded, tiles)
        reference, tolerance = _part(whole, core), MIN_TOLERANCE[precision]
        if precision != "float32":
            rounded = _part(_in_precision(folded, lower), core)
            tolerance = max(tolerance, MAX_ERROR_RATIO * relative_error(rounded, reference))
        graph = optimized(model.network, engine.device, precision)
        plain, _ = read_activations(graph, lower)
        ready = specialized(graph, normalized.shape[axes], core, {})
        output = _part(ready.network(lower), [(a - s, b - s) for (a, b), s in zip(core, ready.start, strict=True)])
        error = relative_error(output, reference)
    return NetworkCheck(
        kind=kind,
        precision=precision,
        largest=plain.largest,
        layer=plain.layer,
        not_finite=plain.not_finite,
        not_finite_float32=trained.not_finite,
        error=error,
        tolerance=tolerance,
    )


def _part(output: Tensor, spans: list[tuple[int, int]]) -> Tensor:
    """The part of (N, C, [z,] y, x) from first to last index along each axis."""
    return output[:, :, *(slice(a, b + 1) for a, b in spans)]


def _in_precision(network: fx.GraphModule, tiles: Tensor) -> Tensor:
    """The output of a network in the tiles' precision, its weights rounded to the nearest."""
    tensors = {
        name: tensor.to(tiles.device, tiles.dtype if tensor.is_floating_point() else tensor.dtype)
        for name, tensor in network.state_dict().items()
    }
    output: Tensor = functional_call(network, tensors, (tiles,))
    return output


def relative_error(output: Tensor, reference: Tensor) -> float:
    """Root mean square of a difference, over that of the reference; infinite if the output is not finite.

    >>> relative_error(torch.tensor([3.0, 5.0]), torch.tensor([3.0, 4.0]))
    0.2
    """
    if not bool(output.isfinite().all()):
        return float("inf")
    exact = reference.double()
    error, size = (float(t.square().mean().sqrt()) for t in (output.double() - exact, exact))
    return error / size if size and isfinite(size) else error
