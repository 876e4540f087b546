"""What Neuroglancer is told: layers, voxel sizes and the first view, as its state in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volseg.view.shaders import membrane_shader, raw_shader
from volseg.view.sources import Role, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import ZyxFloat
    from volseg.view.metadata import Facts

_PANEL = (700, 900)
"""Rows and columns of pixels that the picture surely has on a laptop."""

_VOXELS_A_PIXEL = 2
"""Further out, a volume without coarse levels would have the browser load gigabytes."""

_DRAWN_ORDER = tuple(Role)
_CONTROLS = {"tab": "rendering", "codeVisible": False}


@dataclass(frozen=True, slots=True)
class Layer:
    """A source, where the browser finds it, and the values drawn black and white where it is grey."""

    source: Source
    url: str
    grey: tuple[float, float] | None = None


def scene(layers: Sequence[Layer]) -> dict[str, Any]:
    """The state of a new viewer: the middle section of the first volume, the others laid over it.

    Positions are along (z, y, x), counted in voxels of the first local volume. Without a voxel size a volume gets
    that of another one of the same shape; else its voxels are 1 nm. Where none states a size, lengths have no unit.
    """
    ordered = sorted(layers, key=lambda layer: _DRAWN_ORDER.index(layer.source.role))
    known = [layer.source.facts for layer in ordered if layer.source.facts is not None]
    membranes = [layer.source.name for layer in ordered if layer.source.role is Role.MEMBRANE]
    unit = "nm" if any(facts.voxel_nm for facts in known) or not known else ""
    state: dict[str, Any] = {
        "layers": [_layer(layer, known, unit, membranes) for layer in ordered],
        "displayDimensions": ["x", "y", "z"],
        "selectedLayer": {"layer": ordered[-1].source.name, "visible": True, "size": 300},
        "layout": "xy",
        "showAxisLines": False,
        "crossSectionBackgroundColor": "#202020",
        "title": "volseg: " + ", ".join(layer.source.name for layer in layers),
    }
    return state | (_first_view(known[0], voxel_size(known[0], known), unit) if known else {})


def voxel_size(facts: Facts, known: Sequence[Facts]) -> ZyxFloat:
    """The voxel size a volume is drawn with: its own, that of another of its shape, or 1."""
    alike = [other.voxel_nm for other in known if other.shape == facts.shape and other.voxel_nm]
    return facts.voxel_nm or (alike[0] if alike else (1.0, 1.0, 1.0))


def _first_view(facts: Facts, voxel: ZyxFloat, unit: str) -> dict[str, Any]:
    fitting = max(n * v / pixels for n, v, pixels in zip(facts.shape[1:], voxel[1:], _PANEL, strict=True)) / min(voxel)
    view = {
        "dimensions": {axis: [size, unit] for axis, size in zip("zyx", voxel, strict=True)},
        "crossSectionScale": min(fitting, _VOXELS_A_PIXEL * facts.coarsest * voxel[2] / min(voxel)),
    }
    # Where the metadata moves the volume, Neuroglancer finds the middle by itself. A voxel's centre is a whole number.
    return view if facts.moved else view | {"position": [n // 2 for n in facts.shape]}


def _layer(layer: Layer, known: Sequence[Facts], unit: str, membranes: Sequence[str]) -> dict[str, Any]:
    facts = layer.source.facts
    source: Any = {"url": layer.url}
    if facts is not None and (facts.voxel_nm is None or not facts.is_image):
        source["transform"] = _placed(facts, voxel_size(facts, known), unit)
    return {"name": layer.source.name, "source": source, **_drawn(layer, membranes)}


def _drawn(layer: Layer, membranes: Sequence[str]) -> dict[str, Any]:
    name, role, facts = layer.source.name, layer.source.role, layer.source.facts
    if role in (Role.RAW, Role.IMAGE):
        opacity = 1.0 if role is Role.RAW else 0.5
        return {
            "type": "image",
            "shader": raw_shader(layer.grey, facts.dtype if facts else "uint8"),
            "opacity": opacity,
            **_CONTROLS,
        }
    if role is Role.MEMBRANE:
        return {"type": "image", "shader": membrane_shader(membranes.index(name)), "opacity": 0.65, **_CONTROLS}
    if role is Role.LABELS:
        return {"type": "segmentation", "selectedAlpha": 0.25, "segments": [], "tab": "rendering"}
    return {"type": "auto"}


def _placed(facts: Facts, voxel: ZyxFloat, unit: str) -> dict[str, Any]:
    """Name the axes and state the voxel size in place of the metadata.

    Neuroglancer puts the centre of an OME-Zarr's first voxel at 0, but the corner of a plain array's: half a voxel
    lies between them.
    """
    rank = len(facts.axes)
    scales: list[list[Any]] = [[1, ""]] * (rank - 3) + [[size, unit] for size in voxel]
    names = [f"d{axis}'" for axis in range(rank - 3)] + ["z", "y", "x"]
    shift = 0.0 if facts.is_image else -0.5
    matrix = [
        [float(row == column) for column in range(rank)] + [shift if row >= rank - 3 else 0.0] for row in range(rank)
    ]
    return {
        "outputDimensions": dict(zip(names, scales, strict=True)),
        "inputDimensions": dict(zip(facts.axes, scales, strict=True)),
        "matrix": matrix,
    }
