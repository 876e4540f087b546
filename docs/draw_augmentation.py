"""Draw the pictures of augmentation.md from generated EM: `python -m docs.draw_augmentation`.

The same bytes each time, on one version of the libraries.
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
_SIDE, _DEPTH, _SECTION = 180, 30, 6
"""Voxels along y and x; sections of the stack; pixels that a section is high, seen from the side."""
_VOXEL_NM = (15.0, 6.0, 6.0)
_MESH_SIDE = 20
_GAP, _HEAD, _COLOURS = 6, 20, 64
_INK, _PAPER = (40, 40, 40), (255, 255, 255)
_MEMBRANE, _UNKNOWN, _MESH = (255, 120, 30), (40, 110, 255), (120, 235, 255)
_NOTHING: dict[str, Any] = {
    "orientations": False,
    "elastic": "none",
    **dict.fromkeys(("brightness", "contrast", "gamma", "noise", "blur"), 0.0),
}


@dataclass(frozen=True)
class Picture:
    """One augmentation, alone.

    Attributes:
        settings: what differs from nothing at all.
        seed: of the patch; chosen so that the picture is a typical one.
        side: drawn from the side (z downwards) instead of from above.
        mesh: lines are drawn into the raw images, and move with them.
    """

    settings: dict[str, Any]
    seed: int = 0
    side: bool = False
    mesh: bool = False


PICTURES = {
    "orientations": Picture({"orientations": True}, seed=3),
    "grid": Picture({"elastic": "grid", "elastic_probability": 1.0}, seed=2, mesh=True),
    "field": Picture(
        {"elastic": "field", "elastic_probability": 1.0, "elastic_points": 12, "elastic_std": 2.0}, seed=1, mesh=True
    ),
    "misalignment": Picture({"misalignment": 0.07}, seed=11, side=True),
    "blur": Picture({"blur": 1.0, "blur_probability": 1.0}, seed=8),
    "defocus": Picture({"defocus": 1.0}, seed=8),
    "gamma": Picture({"gamma": 0.4}, seed=5),
    "contrast": Picture({"contrast": 0.4}, seed=7),
    "brightness": Picture({"brightness": 0.8}, seed=2),
    "shading": Picture({"shading": 1.0}, seed=9),
    "fold": Picture({"fold": 1.0}, seed=8),
    "noise": Picture({"noise": 0.6}, seed=0),
    "missing": Picture({"missing": 0.1}, seed=9, side=True),
}
"""Amounts are above the defaults where those could not be seen in print; the page says so."""


def main() -> None:
    """Write all pictures."""
    made = make_phantom((_DEPTH, 260, 260), seed=4, voxel_nm=_VOXEL_NM)
    raw = normalize(made.raw, ((float(made.raw.mean()), float(made.raw.std())),))
    membrane = (made.labels == 0).astype(np.int32)
    for name, picture in PICTURES.items():
        _save(name, ("before", "after", "labels after"), _panels(picture, raw, membrane))
    _save("border", ("the volume ends", "read_reflected", "labels, too"), _border(raw[0], membrane[0]))


def _panels(picture: Picture, raw: NDArray[np.float32], membrane: NDArray[np.int32]) -> list[NDArray[np.uint8]]:
    """Before, after, and after with labels."""
    inside = np.s_[None, : _DEPTH if picture.side else 1, 40 : 40 + _SIDE, 40 : 40 + _SIDE]
    before = Sample(*map(torch.from_numpy, (raw[inside], membrane[inside])), None, torch.tensor([picture.seed]))
    enrich = make_augmentation(AugmentationSettings(**{**_NOTHING, **picture.settings}), flat=True)
    after = enrich(before)
    images = [_grey(_seen(sample.raw, picture)) for sample in (before, after)]
    if picture.mesh:
        lines = replace(before, raw=torch.from_numpy(_mesh())[None, None])
        meshes = [_seen(sample.raw, picture) for sample in (lines, enrich(lines))]
        images = [_mixed(image, _MESH, mesh) for image, mesh in zip(images, meshes, strict=True)]
    return [*images, _labelled(_seen(after.raw, picture), _seen(after.labels, picture))]


def _mesh() -> NDArray[np.float32]:
    """Lines (y, x), 1 where they are."""
    lines = np.zeros((_SIDE, _SIDE), np.float32)
    lines[_MESH_SIDE // 2 :: _MESH_SIDE] = lines[:, _MESH_SIDE // 2 :: _MESH_SIDE] = 0.6
    return lines


def _seen(part: torch.Tensor, picture: Picture) -> NDArray[Any]:
    """One image (y, x) of a sample: its section, or the stack from the side."""
    stack = part[0].numpy()
    return np.repeat(stack[:, _SIDE // 2], _SECTION, axis=0) if picture.side else stack[0]


def _border(raw: NDArray[np.float32], membrane: NDArray[np.int32]) -> list[NDArray[np.uint8]]:
    """A patch that overhangs the upper left corner of a section."""
    start, stop = (-60, -45), (_SIDE - 60, _SIDE - 45)
    around, labels = read_reflected(raw, start, stop), read_reflected(membrane, start, stop)
    outside = np.ones((_SIDE, _SIDE), bool)
    outside[-start[0] :, -start[1] :] = False
    bare = _grey(around)
    bare[outside] = 225
    return [bare, _grey(around), _labelled(around, labels)]


def _grey(raw: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Normalised grey values as an image (y, x, 3): -3 black, 3 white."""
    grey = np.rint(np.clip((raw + 3) / 6, 0, 1) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=-1)


def _labelled(raw: NDArray[np.float32], labels: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Membrane in one colour, what is ignored in another."""
    return _mixed(_mixed(_grey(raw), _MEMBRANE, 0.5 * (labels == 1)), _UNKNOWN, 0.6 * (labels == IGNORED))


def _mixed(image: NDArray[np.uint8], colour: tuple[int, int, int], share: NDArray[Any]) -> NDArray[np.uint8]:
    """An image (y, x, 3) with a share (y, x) of a colour."""
    cover = np.clip(share, 0, 1)[..., None]
    return np.rint(image * (1 - cover) + np.array(colour) * cover).astype(np.uint8)


def _save(name: str, captions: tuple[str, ...], panels: list[NDArray[np.uint8]]) -> None:
    """Panels side by side under their captions, as a PNG of few colours."""
    sheet = Image.new("RGB", (len(panels) * (_SIDE + _GAP) - _GAP, _HEAD + _SIDE), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for column, (caption, panel) in enumerate(zip(captions, panels, strict=True)):
        left = column * (_SIDE + _GAP)
        pen.text((left, 2), caption, fill=_INK, font=font)
        sheet.paste(Image.fromarray(panel), (left, _HEAD))
    few = sheet.quantize(_COLOURS, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(_IMAGES / f"augmentation-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
