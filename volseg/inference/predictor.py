"""Opens a model file as a predictor of blocks, with the settings of a run record."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from volseg.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Tiling
    from volseg.inference.optimize.onednn import PackedConvolution
    from volseg.inference.settings import Engine
    from volseg.inference.tiled_predictor import TiledPredictor


def disable_tf32() -> None:
    """Compute float32 convolutions in full precision: TF32, on Ampere GPUs and later, has ten bits of mantissa."""
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
    """Load a model and optimise it for predictions in this process; see `open_predictors`."""
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
    """Load a model once and make a predictor for each tiling; they share weights.

    Args:
        model_file: path or URL.
        digest: of the model, from the run record.
        tilings: of blocks.
        engine: how the network is run.
        classes: of the model, to predict.
        as_bytes: yield uint8 in 0..255; only for a block's single estimate, which is not averaged.

    Raises:
        ModelError: the file's digest differs from the recorded one.
        ConfigError: this worker lacks the run's device.
    """
    import torch  # noqa: PLC0415 - the driver imports this module without torch

    from volseg.inference.optimize.optimize import optimized  # noqa: PLC0415 - likewise
    from volseg.inference.tiled_predictor import TiledPredictor  # noqa: PLC0415 - likewise
    from volseg.models.model import load_shared_model  # noqa: PLC0415 - likewise

    model = load_shared_model(model_file)
    if model.digest != digest:
        raise ModelError(f"{model_file} is not the model that this run started with; restore that file")
    if engine.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "this run computes on CUDA, and this worker has no GPU; give slots only to workers with a GPU"
        )
    if engine.device == "cuda":
        disable_tf32()
    network = optimized(model.network, engine.device, engine.precision)
    activate = partial(model.probabilities, classes=classes)
    cache: dict[str, PackedConvolution] = {}
    return [
        TiledPredictor(network, activate, tiling, engine, as_bytes=as_bytes, packed_cache=cache, trained=model.network)
        for tiling in tilings
    ]
