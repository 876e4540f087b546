"""Models in and out: foreign weights become model files, model files become ONNX files and bioimage.io packages."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from volseg.errors import ConfigError, ModelError
from volseg.models.card import read_card
from volseg.models.interop.import_weights import _refuse_existing
from volseg.models.packaged import resolve_model
from volseg.ops import moments
from volseg.phantom import make_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.models.card import ModelCard
    from volseg.models.model import Model

Form: TypeAlias = Literal["onnx", "bioimageio"]

FORMS: dict[str, Form] = {".onnx": "onnx", ".zip": "bioimageio"}
"""What is exported by default, by the suffix of the output."""


@dataclass(frozen=True, slots=True)
class Exported:
    """How what was exported compares with the torch network.

    Attributes:
        differences: by the tool that ran it, the largest difference.
        beyond: share of voxels that the differences leave out: above 0 for networks that unpool by switches alone.
    """

    differences: dict[str, float]
    beyond: float


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
    from volseg.models.interop.onnx_export import exempt, onnx_difference, write_onnx  # noqa: PLC0415 - an extra, and it loads torch

    model, made = _licensed(path, license_id), folder / "model.onnx"
    write_onnx(model, made, {"authors": list(authors)})
    return made, Exported({"ONNX Runtime": onnx_difference(model, made)}, exempt(model))


def _write_package(path: Path, license_id: str | None, authors: Sequence[str], folder: Path) -> tuple[Path, Exported]:
    from volseg.models.interop import bioimageio_package  # noqa: PLC0415 - an extra, and it loads torch
    from volseg.models.interop.onnx_export import exempt  # noqa: PLC0415 - likewise

    bioimageio_package.check_license(license_id or read_card(path).card.license)
    model, made = _licensed(path, license_id), folder / "model.zip"
    shown, other = (
        generated_image(model.card, bioimageio_package.image_shape(model, core), seed)
        for seed, core in enumerate((64, 32))
    )
    runtime = bioimageio_package.write_package(model, shown, folder, made, authors)
    core = bioimageio_package.package_difference(model, made, other)
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
    if card.normalization.scope == "training":
        (mean, std), (own_mean, own_std) = card.normalization.training, moments(grey)
        grey = (grey - own_mean) / own_std * std + mean
        if np.issubdtype(card.normalization.dtype, np.integer):
            limits = np.iinfo(card.normalization.dtype)
            grey = np.rint(np.clip(grey, limits.min, limits.max))
    return grey.astype(np.float32).reshape(shape)


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
