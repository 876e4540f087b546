"""Models in and out: foreign weights become model files, model files become ONNX files and bioimage.io packages."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from volseg.errors import ConfigError, ModelError
from volseg.models import network_class, read_card, resolve_model
from volseg.ops import Normalization, moments
from volseg.phantom import make_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from numpy.typing import NDArray

    from volseg.blocks import ZyxFloat
    from volseg.models import ModelCard, ModelHeader
    from volseg.models.model import Model

Form: TypeAlias = Literal["onnx", "bioimageio"]

FORMS: dict[str, Form] = {".onnx": "onnx", ".zip": "bioimageio"}
"""What is exported by default, by the suffix of the output."""


@dataclass(frozen=True, slots=True)
class Meaning:
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


@dataclass(frozen=True, slots=True)
class Exported:
    """How what was exported compares with the torch network.

    Attributes:
        differences: by the tool that ran it, the largest difference.
        beyond: share of voxels that the differences leave out: above 0 for networks that unpool by switches alone.
    """

    differences: dict[str, float]
    beyond: float


def normalization_of(
    mode: Literal["section", "volume", "fixed"], mean: float | None, std: float | None, dtype: str | None
) -> Normalization:
    """How input is made of grey values; the constants belong to `fixed`, which needs them all.

    Raises:
        ConfigError: a constant that is missing, in vain, or no number to divide by.
    """
    given = {"--mean": mean, "--std": std, "--dtype": dtype}
    if mode != "fixed":
        vain = [option for option, value in given.items() if value is not None]
        if vain:
            raise ConfigError(f"{vain[0]} is of no use with --normalization {mode}; leave it out, or say fixed")
        return Normalization(mode, (0.0, 1.0))
    if mean is None or std is None or dtype is None:
        missing = next(option for option, value in given.items() if value is None)
        raise ConfigError(f"--normalization fixed needs {missing}: the training data's own, in its grey values")
    if not (np.isfinite(mean) and np.isfinite(std) and std > 0):
        raise ConfigError(f"mean {mean} and standard deviation {std} must be finite, and the second above 0")
    return Normalization("fixed", (mean, std), dtype)


def import_weights(weights: Path, output: Path, meaning: Meaning) -> tuple[ModelHeader, int]:
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
        raise ConfigError(f"{output} must end in .safetensors, which is what a model file is")
    _refuse_existing(output)
    network_class(meaning.network)
    if meaning.activation == "softmax" and meaning.classes is not None and len(meaning.classes) == 1:
        raise ConfigError("a softmax over one class is 1 everywhere; say --activation sigmoid")

    from volseg.models.foreign import fit_names, read_state_dict  # noqa: PLC0415 - refusals come before torch
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


def export_model(
    model: str, output: Path, *, form: Form | None = None, license_id: str | None = None, authors: Sequence[str] = ()
) -> Exported:
    """Write a model for other tools, and run what was written before it gets its name.

    Args:
        model: a model file, or the name of a packaged model.
        output: file to write.
        form: an ONNX file or a bioimage.io package; by default what the suffix says.
        license_id: terms to state, instead of those in the model file.
        authors: names of those who made the model.

    Raises:
        ConfigError: no such form, tools that are not installed, or a licence that a package cannot state.
        ModelError: no model, an output that exists, a network without an ONNX form, or an export that differs.
    """
    form = form or FORMS.get(output.suffix)
    if form is None:
        raise ConfigError(f"{output} ends neither in .onnx nor in .zip; give --format onnx or --format bioimageio")
    path = resolve_model(model)
    _refuse_existing(output)
    try:
        write = _write_package if form == "bioimageio" else _write_onnx
        with _scratch(output) as folder:
            made, exported = write(path, license_id, authors, Path(folder))
            made.replace(output)
    except ImportError as error:
        raise ConfigError(
            f"exporting needs {error.name or error}, which is not installed; pip install 'volseg[export]'"
        ) from error
    return exported


def _write_onnx(path: Path, license_id: str | None, authors: Sequence[str], folder: Path) -> tuple[Path, Exported]:
    from volseg.models.onnx_export import exempt, onnx_difference, write_onnx  # noqa: PLC0415 - an extra, and it loads torch

    model, made = _licensed(path, license_id), folder / "model.onnx"
    write_onnx(model, made, {"authors": list(authors)})
    return made, Exported({"ONNX Runtime": onnx_difference(model, made)}, exempt(model))


def _write_package(path: Path, license_id: str | None, authors: Sequence[str], folder: Path) -> tuple[Path, Exported]:
    from volseg.models import bioimageio  # noqa: PLC0415 - an extra, and it loads torch
    from volseg.models.onnx_export import exempt  # noqa: PLC0415 - likewise

    bioimageio.check_license(license_id or read_card(path).card.license)
    model, made = _licensed(path, license_id), folder / "model.zip"
    shown, other = (
        generated_image(model.card, bioimageio.image_shape(model, core), seed) for seed, core in enumerate((64, 32))
    )
    runtime = bioimageio.write_package(model, shown, folder, made, authors)
    core = bioimageio.package_difference(model, made, other)
    return made, Exported({"ONNX Runtime": runtime, "bioimageio.core (its test passed)": core}, exempt(model))


def _licensed(path: Path, license_id: str | None) -> Model:
    from volseg.models.model import load_model_file  # noqa: PLC0415 - it loads torch

    model = load_model_file(path)
    return replace(model, card=model.card.model_copy(update={"license": license_id or model.card.license}))


def generated_image(card: ModelCard, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Generated EM of any shape (..., z, y, x), in grey values such as the model was made for.

    No voxel is 0, which volseg takes for fill and others do not.
    """
    # Of larger voxels there would be more tissue than can be generated.
    z, y, x = (min(max(nm, 1.0), most) for nm, most in zip(card.voxel_nm, (50.0, 10.0, 10.0), strict=True))
    rows, columns = shape[-2:]
    raw = make_phantom((shape[-3], max(rows, 32), max(columns, 32)), seed=seed, voxel_nm=(z, y, x)).raw
    grey = np.maximum(raw[:, :rows, :columns], 1).astype(np.float32)
    if card.normalization.mode == "fixed":
        (mean, std), (own_mean, own_std) = card.normalization.training, moments(grey)
        grey = (grey - own_mean) / own_std * std + mean
        if np.issubdtype(card.normalization.dtype, np.integer):
            limits = np.iinfo(card.normalization.dtype)
            grey = np.rint(np.clip(grey, limits.min, limits.max))
    return grey.astype(np.float32).reshape(shape)


def _refuse_existing(output: Path) -> None:
    if output.exists():
        raise ModelError(f"{output} exists already; choose another name, or move it away")


@contextmanager
def _scratch(output: Path) -> Iterator[str]:
    """A folder beside the output, so that a file gets its name whole and proven, or not at all."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise ModelError(f"cannot write into {output.parent}: {error.strerror}; choose another output") from error
    with folder as name:
        yield name
