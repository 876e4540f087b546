"""Description of a model in a bioimage.io package: rdf.yaml and README.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bioimageio.spec.model.v0_5 import ModelDescr

from volseg.errors import ModelError
from volseg.models.interop.onnx_export import INPUT, OPSET, OUTPUT, card_fields, exempt_fraction, spatial_axes
from volseg.registry import NORMALIZATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from volseg.models.model import Model

CITATIONS = {
    "fusionnet": ("Quan, Hildebrand, Jeong: FusionNet, 2021", "10.3389/fcomp.2021.613981"),
    "unet": ("Ronneberger, Fischer, Brox: U-Net, 2015", "10.1007/978-3-319-24574-4_28"),
    "deconvnet": ("Noh, Hong, Han: Learning Deconvolution Network, 2015", "10.1109/ICCV.2015.178"),
    "fcn": ("Long, Shelhamer, Darrell: Fully Convolutional Networks, 2015", "10.1109/CVPR.2015.7298965"),
}
"""Publications of the networks, by prefix of their names."""


@dataclass(frozen=True, slots=True)
class AxisSize:
    """Sizes along a spatial axis.

    Attributes:
        minimum: smallest input.
        step: difference of valid inputs.
        halo: context around a block that is cropped from its output, on each side; 0 along unpadded axes.
        shrinkage: difference of input and output; 0 along padded axes.
    """

    minimum: int
    step: int
    halo: int
    shrinkage: int


def axis_sizes(model: Model) -> dict[str, AxisSize]:
    """Sizes along each spatial axis.

    With a halo, the smallest input is larger than that of the network, since the format requires room to crop it.
    """
    footprint = model.card.footprint
    halo = footprint.exact_halo()
    minimum = footprint.input_shape((1, 1, 1), halo)
    return {
        name: AxisSize(
            minimum[axis],
            footprint.stride[axis],
            0 if footprint.margin[axis] else halo[axis],
            2 * footprint.margin[axis],
        )
        for name, axis in spatial_axes(model)
    }


def package_description(model: Model, authors: Sequence[str]) -> dict[str, Any]:
    """Content of rdf.yaml."""
    card = model.card
    name = re.sub(r"[^A-Za-z0-9_+\-() ]", "-", card.name)
    citations = [
        {"text": text, "doi": doi} for prefix, (text, doi) in CITATIONS.items() if card.network.startswith(prefix)
    ]
    return {
        "type": "model",
        "format_version": ModelDescr.implemented_format_version,
        "name": name if len(name) >= 5 else f"volseg {name}",
        "description": f"{', '.join(card.classes)} in electron microscopy, by {card.network}; exported from volseg.",
        "authors": [{"name": author} for author in authors],
        "cite": citations,
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
                # As volseg mirrors beyond the volume.
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
        "config": {"bioimageio": _tolerance(model), "volseg": card_fields(model)},
    }


def _input_channels(model: Model) -> dict[str, Any]:
    sections = model.card.footprint.smallest[0] if model.card.footprint.dimensions == 2 else 1
    names = ["grey"] if sections == 1 else [f"section {index - sections // 2:+d}" for index in range(sections)]
    return {"type": "channel", "channel_names": names}


def _input_axes(model: Model) -> Iterator[dict[str, Any]]:
    for name, size in axis_sizes(model).items():
        yield {**_space(model, name), "size": {"min": size.minimum, "step": size.step}, "concatenable": False}


def _output_axes(model: Model) -> Iterator[dict[str, Any]]:
    for name, size in axis_sizes(model).items():
        reference = {"tensor_id": INPUT, "axis_id": name, "offset": -size.shrinkage}
        yield {**_space(model, name), "size": reference, **({"halo": size.halo} if size.halo else {})}


def _space(model: Model, name: str) -> dict[str, Any]:
    nm = model.card.voxel_nm["zyx".index(name)]
    return {"type": "space", "id": name, "unit": "nanometer", "scale": exact_scale(nm)}


def exact_scale(nm: float) -> float:
    """Round a voxel size so that the format's rule for sizes, int(size * scale / scale), is exact.

    Rounding may reduce the size by one voxel: at 4.2 nm, 61 voxels become 60. Scales of few binary digits are exact.

    >>> exact_scale(4.0), round(exact_scale(4.2), 3)
    (4.0, 4.2)
    """
    return nm if all(int(size * nm / nm) == size for size in range(1, 8192)) else max(round(nm * 1024), 1) / 1024


def _preprocessing(model: Model) -> dict[str, Any]:
    card = model.card
    if card.normalization.mode not in NORMALIZATIONS.builtins:
        raise ModelError(
            f"{card.name} has the normalisation {card.normalization.mode!r} of a plug-in, which a BioImage.IO package "
            "cannot state; export it as .onnx"
        )
    if card.normalization.mode == "fixed":
        mean, std = card.normalization.training
        return {"id": "fixed_zero_mean_unit_variance", "kwargs": {"mean": mean, "std": std}}
    axes = ["y", "x"]
    if card.normalization.mode == "volume":
        # The sections of a volume are the batch of a 2-D network.
        axes = ["z", "y", "x"] if card.footprint.dimensions == 3 else ["batch", "channel", "y", "x"]
    return {"id": "zero_mean_unit_variance", "kwargs": {"axes": axes}}


def _tolerance(model: Model) -> dict[str, Any]:
    """Tolerance of the official test, if its default is too strict."""
    per_million = round(exempt_fraction(model) * 1e6)
    return {"reproducibility_tolerance": [{"mismatched_elements_per_million": per_million}]} if per_million else {}


def package_readme(model: Model) -> str:
    """Content of README.md: metadata, training, and how to validate the model."""
    card = model.card
    fields = {key: value for key, value in card_fields(model).items() if key != "name"}
    rows = "\n".join(f"| {key.replace('_', ' ')} | {value} |" for key, value in fields.items())
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
