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
    """What weights do not say of themselves.

    Attributes:
        network: the network's name in the registry.
        arguments: what it is made with; those left out are as published.
        voxel_nm: voxel size of the training data, (z, y, x) in nanometres.
        normalization: how its input was made.
        classes: what each output channel stands for; by default membrane, or cell and membrane.
        activation: what makes probability of its output; by default sigmoid for one class, softmax for more.
        name: what to call the model; by default as the file.
        license: terms of the training data.
    """

    network: str
    arguments: dict[str, Any]
    voxel_nm: ZyxFloat
    normalization: Normalization
    classes: tuple[str, ...] | None = None
    activation: Literal["sigmoid", "softmax"] | None = None
    name: str | None = None
    license: str = "not stated"


def normalization_of(mode: str, mean: float | None, std: float | None, dtype: str | None) -> Normalization:
    """How input is made of grey values; the constants belong to `fixed`, which needs them all.

    Raises:
        ConfigError: a constant is missing, not used by the mode, not finite, or a standard deviation of 0 or less.
    """
    given = {"--mean": mean, "--std": std, "--dtype": dtype}
    if mode != "fixed":
        unused = next((option for option, value in given.items() if value is not None), None)
        if unused:
            raise ConfigError(f"{unused} needs --normalization fixed; leave it out with --normalization {mode}")
        return Normalization(mode, (0.0, 1.0))
    if mean is None or std is None or dtype is None:
        missing = next(option for option, value in given.items() if value is None)
        raise ConfigError(f"--normalization fixed needs {missing} of the training data")
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise ConfigError(f"mean {mean} and standard deviation {std} must be finite, the standard deviation above 0")
    return Normalization("fixed", (mean, std), dtype)


def import_weights(weights: Path, output: Path, meaning: ImportSpec) -> tuple[ModelHeader, int]:
    """Write a model file that holds the weights of a PyTorch state dict.

    Args:
        weights: a .pt, .pth or .safetensors file.
        output: the model file.
        meaning: what the weights do not say.

    Returns:
        The model file's header, and how many tensors were matched by order because their names differ.

    Raises:
        ModelError: weights that cannot be read or do not fit, or an output that exists.
        ConfigError: a network, arguments or classes that do not exist or do not suit.
    """
    if output.suffix != ".safetensors":
        raise ConfigError(f"--output {output} must end in .safetensors")
    _refuse_existing(output)
    NETWORKS.check(meaning.network)
    if meaning.activation == "softmax" and meaning.classes is not None and len(meaning.classes) == 1:
        raise ConfigError("a softmax over one class is 1 everywhere; use --activation sigmoid")

    from volseg.models.interop.state_dict import fit_names, read_state_dict  # noqa: PLC0415 - refusals come before torch
    from volseg.models.model import card_for, load_model_file, save_model  # noqa: PLC0415 - likewise
    from volseg.models.registry import build_network  # noqa: PLC0415 - likewise

    state = read_state_dict(weights)
    network = build_network(meaning.network, meaning.arguments)
    fitted = fit_names(state, network)
    network.load_state_dict(fitted.tensors)
    card = card_for(
        network,
        name=meaning.name or output.stem,
        kind=meaning.network,
        arguments=meaning.arguments,
        normalization=meaning.normalization,
        voxel_nm=meaning.voxel_nm,
        classes=meaning.classes,
        activation=meaning.activation,
        license=meaning.license,
        training={"imported_from": weights.name, "tensors_matched_by_order": fitted.renamed},
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
    return header, fitted.renamed


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise ModelError(f"{output} exists already; choose another name, or move it away")
