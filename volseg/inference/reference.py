"""Reference predictions: the network as trained, in float32 and eager mode."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from volseg.inference.executor import forward_executor
from volseg.inference.predictor import disable_tf32
from volseg.models.receptive_field import EXCLUSIVE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import Tiling
    from volseg.inference.settings import Engine
    from volseg.models.model import Model


def reference_probability(
    model: Model, normalized: NDArray[np.float32], tiling: Tiling, engine: Engine, classes: tuple[str, ...]
) -> NDArray[np.float32]:
    """Probabilities of one tile's core.

    Args:
        model: in main memory.
        normalized: input of one tile, (z, y, x).
        tiling: of the tile.
        engine: its device and threads; the precision is always float32.
        classes: of the model, to predict.

    Returns:
        (classes, z, y, x) in [0, 1].
    """
    flat = tiling.footprint.dimensions == 2

    def forward() -> NDArray[np.float32]:
        with EXCLUSIVE, torch.inference_mode():
            if engine.device == "cuda":
                disable_tf32()
            if engine.threads:
                torch.set_num_threads(engine.threads)
            tile = torch.from_numpy(normalized).to(engine.device)
            # A copy on a GPU: the model may be shared.
            network = model.network if engine.device == "cpu" else deepcopy(model.network).to(engine.device)
            output = network.eval()(tile[None] if flat else tile[None, None])
            cores = (output[:, :, None] if flat else output)[:, :, *tiling.crop.slices]
            probabilities: NDArray[np.float32] = model.probabilities(cores, classes=classes)[0].cpu().numpy()
            return probabilities

    return forward_executor.submit(forward).result()
