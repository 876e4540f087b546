"""A model as a bioimage.io package: a zip that holds an ONNX file, test images, and a description of all of it."""

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
from volseg.models.interop.bioimageio_description import description, model_page
from volseg.models.interop.onnx_export import TOLERANCE, difference, onnx_difference, probability, write_onnx

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.models.model import Model

_DEVICES = ["CPUExecutionProvider"]


def check_license(license_id: str) -> None:
    """Refuse terms that a package cannot state.

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
        model: the model.
        grey: grey values (N, C, y, x) or (N, C, z, y, x) of the test image, of a size that `image_shape` allows.
        folder: an empty folder for its parts.
        package: the zip to write.
        authors: names of those who made the model.

    Returns:
        The largest difference of its ONNX file from the torch network.

    Raises:
        ModelError: the network has no ONNX form, or the description is not a valid one.
    """
    write_onnx(model, folder / "weights.onnx", {"authors": list(authors)})
    worst = onnx_difference(model, folder / "weights.onnx")
    made = probability(model, normalized(model, grey))
    np.save(folder / "test_input.npy", grey)
    np.save(folder / "test_output.npy", made)
    (folder / "README.md").write_text(model_page(model))
    _save_cover(folder / "cover.png", grey, made[:, -1])
    reason = _save_package(description(model, authors), folder, package)
    if reason:
        raise ModelError(f"bioimage.io refuses the description of {model.card.name!r}: {reason}")
    return worst


def package_difference(model: Model, package: Path, grey: NDArray[np.float32]) -> float:
    """Have bioimageio.core test a package and predict with it; the largest difference from volseg's prediction.

    Args:
        model: the model.
        package: the zip.
        grey: grey values of an image that is not the package's own, of a size that `image_shape` allows.

    Raises:
        ModelError: the official test fails, or the prediction differs by more than `TOLERANCE`.
    """
    errors = _test_errors(package)
    if errors:
        raise ModelError(f"the package fails the test of bioimageio.core ({'; '.join(errors)}); not exported")
    taken, made = _predicted(package, grey)
    # Step by step, so that the last bits of normalised values are not taken for the network's doing.
    normalising = float(np.abs(taken - normalized(model, grey)).max())
    worst = max(normalising, difference(model, made, probability(model, taken)))
    if not worst <= TOLERANCE:
        raise ModelError(
            f"bioimageio.core's prediction with the package differs from volseg's by {worst:.2g}, more than "
            f"{TOLERANCE:g}; not exported"
        )
    return worst


def normalized(model: Model, grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """The network's input for grey values (1, C, y, x) or (1, C, z, y, x)."""
    return model.normalize(grey.reshape(-1, *grey.shape[-2:])).reshape(grey.shape)


def image_shape(model: Model, core: int) -> tuple[int, ...]:
    """The smallest image (1, C, y, x) or (1, C, z, y, x) with `core` voxels inside the halo, along y and x."""
    footprint = model.card.footprint
    zyx = footprint.input_shape((1, core, core), footprint.exact_halo())
    return (1, *zyx) if footprint.dimensions == 2 else (1, 1, *zyx)


def _save_cover(path: Path, grey: NDArray[np.float32], made: NDArray[np.float32]) -> None:
    """The middle of the test image beside the middle of its probability, as large as each other."""
    sections = [plane.reshape(-1, *plane.shape[-2:]) for plane in (grey, made)]
    raw, map_ = (section[len(section) // 2] for section in sections)
    side = min(*raw.shape, *map_.shape)
    shown = []
    for plane in ((raw - raw.min()) / max(float(np.ptp(raw)), 1e-6), map_):
        top, left = ((n - side) // 2 for n in plane.shape)
        shown.append(np.rint(plane[top : top + side, left : left + side] * 255).astype(np.uint8))
    Image.fromarray(np.hstack(shown)).save(path)


@contextmanager
def quietly() -> Iterator[None]:
    """Without the logs and progress bars of bioimageio, and without the files that it leaves open.

    Raises:
        ModelError: whatever bioimageio raises.
    """
    logger.disable("bioimageio")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            with redirect_stderr(io.StringIO()):
                yield
        except Exception as error:
            # What it left open hangs on the frames that it failed in.
            traceback.clear_frames(error.__traceback__)
            raise ModelError(f"bioimageio.core refuses the package ({error}); not exported") from error
        finally:
            logger.enable("bioimageio")
            gc.collect()


@quietly()
def _save_package(content: dict[str, Any], folder: Path, package: Path) -> str:
    """Write the zip of what lies in a folder; returns why it is not a valid package, or nothing."""
    described = build_description(content, context=ValidationContext(root=folder, perform_io_checks=True))
    if isinstance(described, InvalidDescr):
        return described.get_reason() or "it does not say why"
    save_bioimageio_package(described, output_path=package)
    return ""


@quietly()
def _test_errors(package: Path) -> list[str]:
    """What the official test of a package finds wrong."""
    summary = test_model(package, weight_format="onnx", devices=_DEVICES)
    errors = [error.msg for detail in summary.details for error in detail.errors]
    return [] if summary.status == "passed" else errors or [summary.status]


@quietly()
def _predicted(package: Path, grey: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What bioimageio.core makes of an image that is as large as the network takes: normalised, and predicted."""
    described = load_model_description(package)
    with create_prediction_pipeline(described, weights_format="onnx", devices=_DEVICES) as pipeline:
        sample = create_sample_for_model(described, inputs=grey)
        pipeline.apply_preprocessing(sample)
        # The halo is for blocks.
        made = pipeline.predict_sample_without_blocking(
            sample, skip_preprocessing=True, skip_input_padding=True, skip_output_cropping=True
        )
        taken, predicted = sample.members[pipeline.input_ids[0]], made.members[pipeline.output_ids[0]]
        return np.array(taken.data.values), np.array(predicted.data.values)
