"""Model files from PyTorch state dicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from volseg.errors import ConfigError, ModelError
from volseg.models.registry import NETWORKS
from volseg.ops import Normalization

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from volseg.blocks import ZyxFloat
    from volseg.models.card import ModelHeader


@dataclass(frozen=True, slots=True)
class ImportSpec:
    """Metadata that a state dict does not contain.

    Attributes:
        network: name in the registry.
        arguments: of the network's class; the published values by default.
        voxel_nm: voxel size of the training data, (z, y, x) in nanometres.
        normalization: of the input.
        classes: names of the output channels; by default membrane, or cell and membrane.
        activation: of the output; by default sigmoid for one class, softmax for several.
        upsampled_first: whether a U-Net concatenates upsampled features before the skip; by default as its public
            layout does, or else after it.
        name: of the model; by default the stem of the output.
        license: of the training data.
    """

    network: str
    arguments: dict[str, Any]
    voxel_nm: ZyxFloat
    normalization: Normalization
    classes: tuple[str, ...] | None = None
    activation: Literal["sigmoid", "softmax"] | None = None
    upsampled_first: bool | None = None
    name: str | None = None
    license: str = "not stated"


def normalization_of(mode: str, mean: float | None, std: float | None, dtype: str | None) -> Normalization:
    """Build a normalisation; mode `fixed` needs all constants, others none.

    Raises:
        ConfigError: a constant is missing, not used by the mode, not finite, or a standard deviation of 0 or less.
    """
    constants = {"--mean": mean, "--std": std, "--dtype": dtype}
    if mode != "fixed":
        unused = next((option for option, value in constants.items() if value is not None), None)
        if unused:
            raise ConfigError(f"{unused} needs --normalization fixed; leave it out with --normalization {mode}")
        return Normalization(mode, (0.0, 1.0))
    if mean is None or std is None or dtype is None:
        missing = next(option for option, value in constants.items() if value is None)
        raise ConfigError(f"--normalization fixed needs {missing} of the training data")
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise ConfigError(f"mean {mean} and standard deviation {std} must be finite, the standard deviation above 0")
    return Normalization("fixed", (mean, std), dtype)


def import_weights(weights: Path, output: Path, spec: ImportSpec) -> tuple[ModelHeader, list[str]]:
    """Write a model file with the weights of a PyTorch state dict.

    Args:
        weights: a .pt, .pth or .safetensors file.
        output: the model file.
        spec: metadata of the model.

    Returns:
        The model file's header, and what was assumed of the weights, a line each.

    Raises:
        ModelError: weights that cannot be read or do not match, or an output that exists.
        ConfigError: an unknown network, or arguments or classes that do not fit it.
    """
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output} must end in .safetensors")
    refuse_existing(output)
    NETWORKS.check(spec.network)
    if spec.activation == "softmax" and spec.classes is not None and len(spec.classes) == 1:
        raise ConfigError("a softmax over one class is 1 everywhere; use --activation sigmoid")
    if spec.upsampled_first is not None and spec.network != "unet":
        raise ConfigError(f"--concatenation is for --network unet, not {spec.network}; leave it out")

    from volseg.models.interop.translate import translate  # noqa: PLC0415 - refusals come before torch
    from volseg.models.model import build_card, load_model_file, save_model  # noqa: PLC0415 - likewise

    network, arguments, notes = translate(weights, spec.network, spec.arguments, spec.upsampled_first)
    card = build_card(
        network,
        name=spec.name or output.stem,
        kind=spec.network,
        arguments=arguments,
        normalization=spec.normalization,
        voxel_nm=spec.voxel_nm,
        classes=spec.classes,
        activation=spec.activation,
        license=spec.license,
        training={"imported_from": weights.name, "assumed": notes},
    )
    try:
        header = save_model(output, network, card)
    except OSError as error:
        raise ModelError(f"cannot write {output}: {error.strerror}; choose another --output") from error
    try:
        load_model_file(output)
    except ModelError:
        output.unlink()
        raise
    return header, notes


def refuse_existing(output: Path) -> None:
    """Raise ModelError if a file exists."""
    if output.exists():
        raise ModelError(f"{output} exists already; choose another name, or move it away")
