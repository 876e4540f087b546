"""Exports a model as a bioimage.io package: a zip of an ONNX file, test images, and their description."""

from __future__ import annotations

import gc
import io
import traceback
import warnings
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

import numpy as np
from bioimageio.core import create_prediction_pipeline, test_model
from bioimageio.core.digest_spec import create_sample_for_model
from bioimageio.spec import (
    InvalidDescr,
    ValidationContext,
    build_description,
    load_model_description,
    save_bioimageio_package,
)
from bioimageio.spec.model.v0_5 import LicenseId
from loguru import logger
from PIL import Image
from pydantic import ValidationError

from volseg.errors import ConfigError, ModelError
from volseg.models.interop.bioimageio_description import package_description, package_readme
from volseg.models.interop.onnx_export import (
    TOLERANCE,
    max_difference,
    onnx_difference,
    predict_probability,
    write_onnx,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.models.model import Model

_DEVICES = ["CPUExecutionProvider"]


def check_license(license_id: str) -> None:
    """Refuse a licence that is not an SPDX identifier.

    Raises:
        ConfigError: not an SPDX identifier.
    """
    try:
        LicenseId(license_id)
    except ValidationError:
        raise ConfigError(
            f"a bioimage.io package needs an SPDX licence identifier, but the licence is {license_id!r}; "
            "give one, such as --license CC-BY-4.0 (spdx.org/licenses lists them)"
        ) from None


def write_package(
    model: Model, grey: NDArray[np.float32], folder: Path, package: Path, authors: Sequence[str]
) -> float:
    """Write a package.

    Args:
        model: to export.
        grey: grey values (N, C, y, x) or (N, C, z, y, x) of the test image, of a shape as from `image_shape`.
        folder: an empty folder for the contents.
        package: the zip to write.
        authors: names of the model's authors.

    Returns:
        The maximum difference of the ONNX file from the torch network.

    Raises:
        ModelError: the network has an operation that ONNX lacks, or the description is invalid.
    """
    write_onnx(model, folder / "weights.onnx", {"authors": list(authors)})
    difference = onnx_difference(model, folder / "weights.onnx")
    probability = predict_probability(model, normalized(model, grey))
    np.save(folder / "test_input.npy", grey)
    np.save(folder / "test_output.npy", probability)
    (folder / "README.md").write_text(package_readme(model))
    _save_cover(folder / "cover.png", grey, probability[:, -1])
    reason = _save_package(package_description(model, authors), folder, package)
    if reason:
        raise ModelError(f"bioimage.io rejects the description of {model.card.name!r}: {reason}")
    return difference


def package_difference(model: Model, package: Path, grey: NDArray[np.float32]) -> float:
    """Test a package with bioimageio.core; returns the maximum difference of its prediction from volseg's.

    Args:
        model: that was exported.
        package: the zip.
        grey: grey values of an image other than the test image, of a shape as from `image_shape`.

    Raises:
        ModelError: the official test fails, or the prediction differs by more than `TOLERANCE`.
    """
    errors = _test_errors(package)
    if errors:
        raise ModelError(f"the package fails the test of bioimageio.core ({'; '.join(errors)}); not exported")
    network_input, output = _predict(package, grey)
    # Compared in two steps, so that rounding of the normalised values does not count as error of the network.
    input_difference = float(np.abs(network_input - normalized(model, grey)).max())
    difference = max(input_difference, max_difference(model, output, predict_probability(model, network_input)))
    if not difference <= TOLERANCE:
        raise ModelError(
            f"bioimageio.core's prediction with the package differs from volseg's by {difference:.2g}, more than "
            f"{TOLERANCE:g}; not exported"
        )
    return difference


def normalized(model: Model, grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """Normalise grey values (1, C, y, x) or (1, C, z, y, x)."""
    return model.normalize(grey.reshape(-1, *grey.shape[-2:])).reshape(grey.shape)


def image_shape(model: Model, core: int) -> tuple[int, ...]:
    """Shape (1, C, y, x) or (1, C, z, y, x) of the smallest image with `core` voxels inside the halo along y and x."""
    footprint = model.card.footprint
    zyx = footprint.input_shape((1, core, core), footprint.exact_halo())
    return (1, *zyx) if footprint.dimensions == 2 else (1, 1, *zyx)


def _save_cover(path: Path, grey: NDArray[np.float32], probability: NDArray[np.float32]) -> None:
    """Write the centres of the test image and of its probability side by side."""
    sections = [plane.reshape(-1, *plane.shape[-2:]) for plane in (grey, probability)]
    raw, map_ = (section[len(section) // 2] for section in sections)
    side = min(*raw.shape, *map_.shape)
    panels = []
    for plane in ((raw - raw.min()) / max(float(np.ptp(raw)), 1e-6), map_):
        top, left = ((n - side) // 2 for n in plane.shape)
        panels.append(np.rint(plane[top : top + side, left : left + side] * 255).astype(np.uint8))
    Image.fromarray(np.hstack(panels)).save(path)


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress logs and progress bars of bioimageio, and close the files that it leaves open.

    Raises:
        ModelError: for any error of bioimageio.
    """
    logger.disable("bioimageio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with redirect_stderr(io.StringIO()):
                yield
        except Exception as error:
            # The frames of the error hold the open files.
            traceback.clear_frames(error.__traceback__)
            raise ModelError(f"bioimageio.core rejects the package ({error}); not exported") from error
        finally:
            logger.enable("bioimageio")
            gc.collect()


@silenced()
def _save_package(content: dict[str, Any], folder: Path, package: Path) -> str:
    """Write a folder as a package; returns the reason if the description is invalid, else an empty string."""
    parsed = build_description(content, context=ValidationContext(root=folder, perform_io_checks=True))
    if isinstance(parsed, InvalidDescr):
        return parsed.get_reason() or "no reason given"
    save_bioimageio_package(parsed, output_path=package)
    return ""


@silenced()
def _test_errors(package: Path) -> list[str]:
    """Errors of the official test of a package."""
    summary = test_model(package, weight_format="onnx", devices=_DEVICES)
    errors = [error.msg for detail in summary.details for error in detail.errors]
    return [] if summary.status == "passed" else errors or [summary.status]


@silenced()
def _predict(package: Path, grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Normalised input and output of bioimageio.core for an image that the network accepts whole."""
    parsed = load_model_description(package)
    with create_prediction_pipeline(parsed, weights_format="onnx", devices=_DEVICES) as pipeline:
        sample = create_sample_for_model(parsed, inputs=grey)
        pipeline.apply_preprocessing(sample)
        # The halo is only for blocks.
        result = pipeline.predict_sample_without_blocking(
            sample, skip_preprocessing=True, skip_input_padding=True, skip_output_cropping=True
        )
        network_input, output = sample.members[pipeline.input_ids[0]], result.members[pipeline.output_ids[0]]
        return np.array(network_input.data.values), np.array(output.data.values)
