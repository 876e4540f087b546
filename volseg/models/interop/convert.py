"""Exports model files as ONNX files and bioimage.io packages."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np

from volseg.errors import ConfigError, ModelError
from volseg.models.card import read_card
from volseg.models.interop.import_weights import refuse_existing
from volseg.models.packaged import resolve_model
from volseg.ops import moments
from volseg.phantom import make_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from volseg.models.card import ModelCard
    from volseg.models.model import Model

ExportFormat: TypeAlias = Literal["onnx", "bioimageio"]

FORMATS: dict[str, ExportFormat] = {".onnx": "onnx", ".zip": "bioimageio"}
"""Default format for each suffix of the output."""


@dataclass(frozen=True, slots=True)
class ExportResult:
    """Comparison of an export with the torch network.

    Attributes:
        max_differences: maximum difference of probabilities for each tool that ran the export.
        exempt_fraction: fraction of voxels that the differences leave out; above 0 only for networks with unpooling.
    """

    max_differences: dict[str, float]
    exempt_fraction: float


def export_model(
    model: str,
    output: Path,
    *,
    export_format: ExportFormat | None = None,
    license_id: str | None = None,
    authors: Sequence[str] = (),
) -> ExportResult:
    """Export a model for other tools; the export is run and compared before it appears under its name.

    Args:
        model: a model file, or the name of a packaged model.
        output: file to write.
        export_format: `onnx` or `bioimageio` (a package); by default from the suffix.
        license_id: licence to state, instead of that of the model file.
        authors: names of the model's authors.

    Raises:
        ConfigError: unknown format, tools that are not installed, or a licence that is not an SPDX identifier.
        ModelError: an output that exists, operations that ONNX does not have, or an export that differs.
    """
    export_format = export_format or FORMATS.get(output.suffix)
    if export_format is None:
        raise ConfigError(f"{output} ends neither in .onnx nor in .zip; give --format onnx or --format bioimageio")
    path = resolve_model(model)
    refuse_existing(output)
    try:
        write = _write_package if export_format == "bioimageio" else _write_onnx
        with _temporary_folder(output) as folder:
            file, result = write(path, license_id, authors, Path(folder))
            file.replace(output)
    except ImportError as error:
        raise ConfigError(
            f"exporting needs {error.name or error}, which is not installed; pip install 'volseg[export]'"
        ) from error
    return result


def _write_onnx(path: Path, license_id: str | None, authors: Sequence[str], folder: Path) -> tuple[Path, ExportResult]:
    from volseg.models.interop.onnx_export import exempt_fraction, onnx_difference, write_onnx  # noqa: PLC0415 - optional, and it loads torch

    model, file = _load_with_license(path, license_id), folder / "model.onnx"
    write_onnx(model, file, {"authors": list(authors)})
    return file, ExportResult({"ONNX Runtime": onnx_difference(model, file)}, exempt_fraction(model))


def _write_package(
    path: Path, license_id: str | None, authors: Sequence[str], folder: Path
) -> tuple[Path, ExportResult]:
    from volseg.models.interop import bioimageio_package  # noqa: PLC0415 - optional, and it loads torch
    from volseg.models.interop.onnx_export import exempt_fraction  # noqa: PLC0415 - likewise

    bioimageio_package.check_license(license_id or read_card(path).card.license)
    model, file = _load_with_license(path, license_id), folder / "model.zip"
    test_image, other_image = (
        generate_image(model.card, bioimageio_package.image_shape(model, core), seed)
        for seed, core in enumerate((64, 32))
    )
    runtime = bioimageio_package.write_package(model, test_image, folder, file, authors)
    core = bioimageio_package.package_difference(model, file, other_image)
    differences = {"ONNX Runtime": runtime, "bioimageio.core (its test passed)": core}
    return file, ExportResult(differences, exempt_fraction(model))


def _load_with_license(path: Path, license_id: str | None) -> Model:
    from volseg.models.model import load_model_file  # noqa: PLC0415 - it loads torch

    model = load_model_file(path)
    return replace(model, card=model.card.model_copy(update={"license": license_id or model.card.license}))


def generate_image(card: ModelCard, shape: tuple[int, ...], seed: int) -> NDArray[np.float32]:
    """Generate EM of shape (..., z, y, x) with grey values like those of the training data.

    No voxel is 0, since volseg, unlike other tools, treats 0 as fill.
    """
    # Larger voxels would need more tissue than a phantom can have.
    z, y, x = (min(max(nm, 1.0), limit) for nm, limit in zip(card.voxel_nm, (50.0, 10.0, 10.0), strict=True))
    rows, columns = shape[-2:]
    raw = make_phantom((shape[-3], max(rows, 32), max(columns, 32)), seed=seed, voxel_nm=(z, y, x)).raw
    grey = np.maximum(raw[:, :rows, :columns], 1).astype(np.float32)
    if card.normalization.scope == "training":
        (mean, std), (grey_mean, grey_std) = card.normalization.training, moments(grey)
        grey = (grey - grey_mean) / grey_std * std + mean
        if np.issubdtype(card.normalization.dtype, np.integer):
            limits = np.iinfo(card.normalization.dtype)
            grey = np.rint(np.clip(grey, limits.min, limits.max))
    return grey.astype(np.float32).reshape(shape)


@contextmanager
def _temporary_folder(output: Path) -> Iterator[str]:
    """A temporary folder beside the output, so that the output appears complete and checked, or not at all."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.")
    except OSError as error:
        raise ModelError(f"cannot write into {output.parent}: {error.strerror}; choose another output") from error
    with folder as name:
        yield name
