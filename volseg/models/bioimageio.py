"""A model as a bioimage.io package: a zip that holds an ONNX file, test images, and a description of all of it."""

from __future__ import annotations

import gc
import io
import re
import traceback
import warnings
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
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
from bioimageio.spec.model.v0_5 import LicenseId, ModelDescr
from loguru import logger
from PIL import Image
from pydantic import ValidationError

from volseg.errors import ConfigError, ModelError
from volseg.models.onnx_export import (
    INPUT,
    OPSET,
    OUTPUT,
    TOLERANCE,
    card_facts,
    difference,
    exempt,
    onnx_difference,
    probability,
    spatial_axes,
    write_onnx,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from volseg.models.model import Model

CITATIONS = {
    "fusionnet": ("Quan, Hildebrand, Jeong: FusionNet, 2021", "10.3389/fcomp.2021.613981"),
    "unet": ("Ronneberger, Fischer, Brox: U-Net, 2015", "10.1007/978-3-319-24574-4_28"),
    "deconvnet": ("Noh, Hong, Han: Learning Deconvolution Network, 2015", "10.1109/ICCV.2015.178"),
    "fcn": ("Long, Shelhamer, Darrell: Fully Convolutional Networks, 2015", "10.1109/CVPR.2015.7298965"),
}
"""Publications of the networks, by how their names begin."""

_DEVICES = ["CPUExecutionProvider"]


@dataclass(frozen=True, slots=True)
class Extent:
    """Sizes that the description allows along a spatial axis.

    Attributes:
        least: the smallest input.
        step: all others are whole steps larger.
        halo: what consumers read around a block and crop from its output; for axes that the network pads.
        lost: what the output lacks on both sides together; for axes that it does not pad.
    """

    least: int
    step: int
    halo: int
    lost: int


def extents(model: Model) -> dict[str, Extent]:
    """The sizes along each spatial axis.

    With a halo, the smallest input is larger than the network's own: the format asks for room to crop it.
    """
    footprint = model.card.footprint
    halo = footprint.exact_halo()
    least = footprint.input_shape((1, 1, 1), halo)
    return {
        name: Extent(
            least[axis],
            footprint.stride[axis],
            0 if footprint.margin[axis] else halo[axis],
            2 * footprint.margin[axis],
        )
        for name, axis in spatial_axes(model)
    }


def check_license(license_id: str) -> None:
    """Refuse terms that a package cannot state.

    Raises:
        ConfigError: not an SPDX identifier.
    """
    try:
        LicenseId(license_id)
    except ValidationError:
        raise ConfigError(
            f"a bioimage.io package needs the SPDX identifier of its licence, and {license_id!r} is none; "
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


def description(model: Model, authors: Sequence[str]) -> dict[str, Any]:
    """What the package says of the model, as its rdf.yaml holds it."""
    card = model.card
    name = re.sub(r"[^A-Za-z0-9_+\-() ]", "-", card.name)
    cited = [{"text": text, "doi": doi} for known, (text, doi) in CITATIONS.items() if card.network.startswith(known)]
    return {
        "type": "model",
        "format_version": ModelDescr.implemented_format_version,
        "name": name if len(name) >= 5 else f"volseg {name}",
        "description": f"{', '.join(card.classes)} in electron microscopy, by {card.network}; exported from volseg.",
        "authors": [{"name": author} for author in authors],
        "cite": cited,
        "license": card.license,
        "documentation": {"source": "README.md"},
        "covers": [{"source": "cover.png"}],
        "tags": ["electron-microscopy", "connectomics", "semantic-segmentation", *card.classes],
        "inputs": [
            {
                "id": INPUT,
                "description": "grey values",
                "axes": [{"type": "batch"}, _input_channels(model), *_input_axes(model)],
                "test_tensor": {"source": "test_input.npy"},
                "data": {"type": "float32"},
                # volseg mirrors what lies outside.
                "pad": {"mode": "reflect"},
                "preprocessing": [_preprocessing(model)],
            }
        ],
        "outputs": [
            {
                "id": OUTPUT,
                "description": "probability of each class",
                "axes": [
                    {"type": "batch"},
                    {"type": "channel", "channel_names": list(card.classes)},
                    *_output_axes(model),
                ],
                "test_tensor": {"source": "test_output.npy"},
                "data": {"type": "float32", "range": [0.0, 1.0]},
            }
        ],
        "weights": {"onnx": {"source": "weights.onnx", "opset_version": OPSET}},
        "config": {"bioimageio": _tolerance(model), "volseg": card_facts(model)},
    }


def _input_channels(model: Model) -> dict[str, Any]:
    sections = model.card.footprint.smallest[0] if model.card.footprint.dimensions == 2 else 1
    names = ["grey"] if sections == 1 else [f"section {place - sections // 2:+d}" for place in range(sections)]
    return {"type": "channel", "channel_names": names}


def _input_axes(model: Model) -> Iterator[dict[str, Any]]:
    for name, size in extents(model).items():
        yield {**_space(model, name), "size": {"min": size.least, "step": size.step}, "concatenable": False}


def _output_axes(model: Model) -> Iterator[dict[str, Any]]:
    for name, size in extents(model).items():
        reference = {"tensor_id": INPUT, "axis_id": name, "offset": -size.lost}
        yield {**_space(model, name), "size": reference, **({"halo": size.halo} if size.halo else {})}


def _space(model: Model, name: str) -> dict[str, Any]:
    nm = model.card.voxel_nm["zyx".index(name)]
    return {"type": "space", "id": name, "unit": "nanometer", "scale": exact_scale(nm)}


def exact_scale(nm: float) -> float:
    """A voxel size with which the format's rule for sizes is exact: int(size * scale / scale).

    It is off by one where the product is rounded down: at 4.2 nm, 61 voxels become 60. Sizes of few binary digits
    are never rounded.

    >>> exact_scale(4.0), round(exact_scale(4.2), 3)
    (4.0, 4.2)
    """
    return nm if all(int(size * nm / nm) == size for size in range(1, 8192)) else max(round(nm * 1024), 1) / 1024


def _preprocessing(model: Model) -> dict[str, Any]:
    card = model.card
    if card.normalization.mode == "fixed":
        mean, std = card.normalization.training
        return {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": mean, "std": std}}
    axes = ["y", "x"]
    if card.normalization.mode == "volume":
        # To a 2-D network the volume's sections come one by one, and are its batch.
        axes = ["z", "y", "x"] if card.footprint.dimensions == 3 else ["batch", "channel", "y", "x"]
    return {"id": "zero_mean_unit_variance", "kwargs": {"axes": axes}}


def _tolerance(model: Model) -> dict[str, Any]:
    """What the official test lets pass, where its defaults are too strict."""
    share = round(exempt(model) * 1e6)
    return {"reproducibility_tolerance": [{"mismatched_elements_per_million": share}]} if share else {}


def model_page(model: Model) -> str:
    """The package's page: what the model is, what it takes, and how to tell whether it is good."""
    card = model.card
    facts = {key: value for key, value in card_facts(model).items() if key != "name"}
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in facts.items())
    training = "\n".join(f"| {key} | {value} |" for key, value in card.training.items())
    return f"""# {card.name}

Probability of {", ".join(card.classes)} in electron microscopy, made by the network {card.network}. Sizes are along
z, y, x: voxels, or nanometres where it says nm. Reach, stride, margin and halo were derived from the network.

| | |
| --- | --- |
{rows}

Voxels that are exactly 0 (the fill around an aligned volume) do not count for the mean and the standard deviation in
volseg; where a volume has such a fill, normalise before you use this package elsewhere.

## Training

| | |
| --- | --- |
{training or "| | not recorded |"}

## Validation

Label sections that took no part in training, predict them, and compare: `volseg evaluate` gives precision, recall, F1
and the best threshold. The test image of this package is generated, and says nothing of real tissue.
"""


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
            raise ModelError(f"bioimageio does not take the package ({error}); not exported") from error
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
