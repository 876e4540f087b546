"""From a model file to something that predicts blocks, as the run's record says."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from volseg.errors import ConfigError, ModelError
from volseg.inference.memory.malloc import retain_heap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Tiling
    from volseg.inference.optimize.onednn import PackedConvolution
    from volseg.inference.settings import Engine
    from volseg.inference.tiled_predictor import TiledPredictor


def keep_float32() -> None:
    """Let "float32" mean it: on Ampere and later, convolutions would keep ten bits of the mantissa."""
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def open_predictor(
    model_file: str,
    digest: str,
    tiling: Tiling,
    engine: Engine,
    classes: tuple[str, ...] = ("membrane",),
    *,
    as_bytes: bool = False,
) -> TiledPredictor:
    """Load a model and make it ready to predict blocks in this process; see `open_predictors`."""
    return open_predictors(model_file, digest, [tiling], engine, classes, as_bytes=as_bytes)[0]


def open_predictors(
    model_file: str,
    digest: str,
    tilings: Sequence[Tiling],
    engine: Engine,
    classes: tuple[str, ...],
    *,
    as_bytes: bool = False,
) -> list[TiledPredictor]:
    """Load a model once and make it ready to predict, for each of some ways to cut blocks.

    Args:
        model_file: where it is.
        digest: the model's, as recorded.
        tilings: how blocks are cut.
        engine: how the network is run.
        classes: which of the model's classes to predict.
        as_bytes: give 0 to 255, for estimates that are averaged with no others.

    Raises:
        ModelError: the file is not the model that the run recorded.
        ConfigError: the run's device is not on this worker.
    """
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    from volseg.inference.optimize.optimize import optimized  # noqa: PLC0415 - likewise
    from volseg.inference.tiled_predictor import TiledPredictor  # noqa: PLC0415 - likewise
    from volseg.models.model import shared_model  # noqa: PLC0415 - likewise

    model = shared_model(model_file)
    if model.digest != digest:
        raise ModelError(f"{model_file} is not the model that this run was begun with; put that one back")
    if engine.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("this run computes on CUDA, and this worker has no GPU; give its slots to workers that have")
    if engine.device == "cuda":
        keep_float32()
    else:
        retain_heap()
    network = optimized(model.network, engine.device, engine.precision)
    activate = partial(model.probabilities, classes=classes)
    known: dict[str, PackedConvolution] = {}
    return [TiledPredictor(network, activate, tiling, engine, as_bytes=as_bytes, known=known) for tiling in tilings]
