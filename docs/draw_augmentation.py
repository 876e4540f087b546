"""Draw the images of augmentation.md from generated EM: `python -m docs.draw_augmentation`.

Reproducible byte for byte with one version of the libraries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from volseg.config.train_tables import AugmentationSettings
from volseg.ops import normalize, read_reflected
from volseg.phantom import make_phantom
from volseg.training.augmentation import make_augmentation
from volseg.training.data.sample import IGNORED, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

_IMAGES = Path(__file__).parent / "images"
_SIDE, _DEPTH, _ROWS_PER_SECTION = 180, 30, 6
"""Voxels along y and x; sections of the stack; pixel rows of a section seen from the side."""
_VOXEL_NM = (15.0, 6.0, 6.0)
_MESH_SPACING = 20
_GAP, _CAPTION, _PALETTE_SIZE = 6, 20, 64
_TEXT_COLOR, _BACKGROUND = (40, 40, 40), (255, 255, 255)
_MEMBRANE_COLOR, _IGNORED_COLOR, _MESH_COLOR = (255, 120, 30), (40, 110, 255), (120, 235, 255)
_OFF: dict[str, Any] = {
    "orientations": False,
    "elastic": "none",
    **dict.fromkeys(("brightness", "contrast", "gamma", "noise", "blur"), 0.0),
}


@dataclass(frozen=True)
class Example:
    """One augmentation.

    Attributes:
        settings: that differ from no augmentation.
        seed: of the patch; chosen for a typical result.
        from_side: draw a stack from the side (z downwards) instead of a section.
        mesh: draw lines into the raw images that move with them.
    """

    settings: dict[str, Any]
    seed: int = 0
    from_side: bool = False
    mesh: bool = False


EXAMPLES = {
    "orientations": Example({"orientations": True}, seed=3),
    "grid": Example({"elastic": "grid", "elastic_probability": 1.0}, seed=2, mesh=True),
    "field": Example(
        {"elastic": "field", "elastic_probability": 1.0, "elastic_points": 12, "elastic_std": 2.0}, seed=1, mesh=True
    ),
    "misalignment": Example({"misalignment": 0.07}, seed=11, from_side=True),
    "blur": Example({"blur": 1.0, "blur_probability": 1.0}, seed=8),
    "defocus": Example({"defocus": 1.0}, seed=8),
    "gamma": Example({"gamma": 0.4}, seed=5),
    "contrast": Example({"contrast": 0.4}, seed=7),
    "brightness": Example({"brightness": 0.8}, seed=2),
    "shading": Example({"shading": 1.0}, seed=9),
    "fold": Example({"fold": 1.0}, seed=8),
    "noise": Example({"noise": 0.6}, seed=0),
    "missing": Example({"missing": 0.1}, seed=9, from_side=True),
}
"""Amounts are above the defaults where those would be hard to see; the page states them."""


def main() -> None:
    """Draw all images."""
    phantom = make_phantom((_DEPTH, 260, 260), seed=4, voxel_nm=_VOXEL_NM)
    raw = normalize(phantom.raw, ((float(phantom.raw.mean()), float(phantom.raw.std())),))
    membrane = (phantom.labels == 0).astype(np.int32)
    for name, example in EXAMPLES.items():
        _save(name, ("before", "after", "labels after"), _draw_example(example, raw, membrane))
    _save("border", ("the volume ends", "mirrored", "labels, too"), _draw_border(raw[0], membrane[0]))


def _draw_example(example: Example, raw: NDArray[np.float32], membrane: NDArray[np.int32]) -> list[NDArray[np.uint8]]:
    """Images before, after, and after with labels."""
    box = np.s_[None, : _DEPTH if example.from_side else 1, 40 : 40 + _SIDE, 40 : 40 + _SIDE]
    before = Sample(*map(torch.from_numpy, (raw[box], membrane[box])), None, torch.tensor([example.seed]))
    augment = make_augmentation(AugmentationSettings(**{**_OFF, **example.settings}), flip_z=False)
    after = augment(before)
    images = [_to_rgb(_view(sample.raw, example)) for sample in (before, after)]
    if example.mesh:
        lines = replace(before, raw=torch.from_numpy(_mesh())[None, None])
        meshes = [_view(sample.raw, example) for sample in (lines, augment(lines))]
        images = [_blend(image, _MESH_COLOR, mesh) for image, mesh in zip(images, meshes, strict=True)]
    return [*images, _overlay_labels(_view(after.raw, example), _view(after.labels, example))]


def _mesh() -> NDArray[np.float32]:
    """Opacity of mesh lines (y, x)."""
    lines = np.zeros((_SIDE, _SIDE), np.float32)
    lines[_MESH_SPACING // 2 :: _MESH_SPACING] = lines[:, _MESH_SPACING // 2 :: _MESH_SPACING] = 0.6
    return lines


def _view(tensor: torch.Tensor, example: Example) -> NDArray[Any]:
    """The section (y, x) of a sample, or its stack from the side."""
    stack = tensor[0].numpy()
    return np.repeat(stack[:, _SIDE // 2], _ROWS_PER_SECTION, axis=0) if example.from_side else stack[0]


def _draw_border(raw: NDArray[np.float32], membrane: NDArray[np.int32]) -> list[NDArray[np.uint8]]:
    """Images of a patch that extends beyond the upper left corner of a section."""
    start, stop = (-60, -45), (_SIDE - 60, _SIDE - 45)
    mirrored_raw, mirrored_labels = read_reflected(raw, start, stop), read_reflected(membrane, start, stop)
    outside = np.ones((_SIDE, _SIDE), bool)
    outside[-start[0] :, -start[1] :] = False
    cropped = _to_rgb(mirrored_raw)
    cropped[outside] = 225
    return [cropped, _to_rgb(mirrored_raw), _overlay_labels(mirrored_raw, mirrored_labels)]


def _to_rgb(raw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Convert normalised grey values to an image (y, x, 3): -3 black, 3 white."""
    grey = np.rint(np.clip((raw + 3) / 6, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _overlay_labels(raw: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Overlay membrane and ignored voxels in colour."""
    image = _blend(_to_rgb(raw), _MEMBRANE_COLOR, 0.5 * (labels == 1))
    return _blend(image, _IGNORED_COLOR, 0.6 * (labels == IGNORED))


def _blend(image: NDArray[np.uint8], color: tuple[int, int, int], opacity: NDArray[Any]) -> NDArray[np.uint8]:
    """Blend a colour into an image (y, x, 3) with an opacity (y, x)."""
    alpha = np.clip(opacity, 0, 1)[..., None]
    return np.rint(image * (1 - alpha) + np.array(color) * alpha).astype(np.uint8)


def _save(name: str, captions: tuple[str, ...], images: list[NDArray[np.uint8]]) -> None:
    """Save images side by side under their captions, as a PNG with a small palette."""
    sheet = Image.new("RGB", (len(images) * (_SIDE + _GAP) - _GAP, _CAPTION + _SIDE), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for column, (caption, image) in enumerate(zip(captions, images, strict=True)):
        left = column * (_SIDE + _GAP)
        draw.text((left, 2), caption, fill=_TEXT_COLOR, font=font)
        sheet.paste(Image.fromarray(image), (left, _CAPTION))
    quantized = sheet.quantize(_PALETTE_SIZE, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    quantized.save(_IMAGES / f"augmentation-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
