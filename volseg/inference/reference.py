"""A network in float32 and eager, nothing done to its passes: what everything faster is compared with."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch

from volseg.inference.executor import FORWARD
from volseg.inference.predictor import keep_float32
from volseg.models.receptive_field import EXCLUSIVE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from volseg.blocks import Tiling
    from volseg.inference.settings import Engine
    from volseg.models.model import Model


def plain_probability(
    model: Model, normalized: NDArray[np.float32], tiling: Tiling, engine: Engine, classes: tuple[str, ...]
) -> NDArray[np.float32]:
    """Probabilities of one tile's core.

    Args:
        model: in main memory.
        normalized: the input of one tile, (z, y, x).
        tiling: what the tile is cut by.
        engine: on which device, with how many threads; always in float32.
        classes: which of the model's classes.

    Returns:
        (classes, z, y, x) in [0, 1].
    """
    flat = tiling.footprint.dimensions == 2

    def forward() -> NDArray[np.float32]:
        with EXCLUSIVE, torch.inference_mode():
            if engine.device == "cuda":
                keep_float32()
            if engine.threads:
                torch.set_num_threads(engine.threads)
            tile = torch.from_numpy(normalized).to(engine.device)
            # A copy on a GPU: the model may be shared.
            network = model.network if engine.device == "cpu" else deepcopy(model.network).to(engine.device)
            output = network.eval()(tile[None] if flat else tile[None, None])
            cores = (output[:, :, None] if flat else output)[:, :, *tiling.crop.slices]
            made: NDArray[np.float32] = model.probabilities(cores, classes=classes)[0].cpu().numpy()
            return made

    return FORWARD.submit(forward).result()
