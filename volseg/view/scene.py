"""What Neuroglancer is told: layers, voxel sizes and the first view, as its state in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volseg.view.shaders import affinity_shader, membrane_shader, raw_shader, uncertainty_shader
from volseg.view.sources import Role, Source

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import ZyxFloat
    from volseg.storage.zarr_metadata import Facts

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
    """The state of a new viewer: the middle section of the raw EM or the first volume, the others laid over it.

    Positions are along (z, y, x), counted in voxels of the first local volume. Without a voxel size a volume gets
    that of another one of the same shape; else its voxels are 1 nm. Where none states a size, lengths have no unit.
    """
    ordered = sorted(layers, key=lambda layer: _DRAWN_ORDER.index(layer.source.role))
    known = [layer.source.facts for layer in ordered if layer.source.facts is not None]
    raw = [layer.source.facts for layer in ordered if layer.source.role is Role.RAW]
    shown = [layer.source.name for layer in ordered if layer.source.visible]
    unit = "nm" if any(facts.voxel_nm for facts in known) or not known else ""
    state: dict[str, Any] = {
        "layers": [_layer(layer, ordered, known, unit) for layer in ordered],
        "displayDimensions": ["x", "y", "z"],
        "selectedLayer": {"layer": shown[-1], "visible": True, "size": 300},
        "layout": "xy",
        "showAxisLines": False,
        "crossSectionBackgroundColor": "#202020",
        "title": "volseg: " + ", ".join(layer.source.name for layer in layers if layer.source.visible),
    }
    first = next((facts for facts in [*raw, *known] if facts is not None), None)
    return state | ({} if first is None else _first_view(first, voxel_size(first, known), unit))


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


def _layer(layer: Layer, ordered: Sequence[Layer], known: Sequence[Facts], unit: str) -> dict[str, Any]:
    source, facts = layer.source, layer.source.facts
    state: dict[str, Any] = {"name": source.name, "source": {"url": layer.url}, **_drawn(layer, ordered)}
    if not source.visible:
        state["visible"] = False
    if facts is None:
        return state
    is_placed = facts.voxel_nm is None or not facts.is_image
    is_placed = is_placed or (facts.channel_axis is not None and not _is_local(facts, facts.channel_axis))
    if is_placed:
        state["source"]["transform"] = _placed(facts, voxel_size(facts, known), unit)
    if source.channel is not None:
        # One layer a channel: Neuroglancer's shaders read several only where a chunk holds them all.
        local = [axis for axis in range(len(facts.axes) - 3) if is_placed or _is_local(facts, axis)]
        centre = 0.0 if facts.is_image else 0.5
        state["localPosition"] = [centre + (source.channel if axis == facts.channel_axis else 0) for axis in local]
    return state


def _is_local(facts: Facts, axis: int) -> bool:
    """Whether Neuroglancer gives each layer a position of its own along an axis."""
    return facts.axes[axis].endswith("'")


def _drawn(layer: Layer, ordered: Sequence[Layer]) -> dict[str, Any]:
    role = layer.source.role
    if role is Role.LABELS:
        return {"type": "segmentation", "selectedAlpha": 0.25, "segments": [], "tab": "rendering"}
    if role is Role.UNKNOWN:
        return {"type": "auto"}
    shader, opacity = _look(layer, ordered)
    blend = {"blend": "additive"} if role is Role.AFFINITY else {}
    return {"type": "image", "shader": shader, "opacity": opacity, **blend, **_CONTROLS}


def _look(layer: Layer, ordered: Sequence[Layer]) -> tuple[str, float]:
    """The shader of an image, and how much of the layers below it is covered."""
    source = layer.source
    if source.role is Role.AFFINITY:
        return affinity_shader(source.channel or 0), 1.0
    if source.role is Role.UNCERTAINTY:
        return uncertainty_shader(), 0.65
    if source.role is Role.MEMBRANE:
        return membrane_shader(_membranes(ordered).index(source.name)), 0.65
    # Affinities lie below the raw: hidden, either leaves the other in its full colours.
    covers = source.role is Role.RAW and not any(one.source.role is Role.AFFINITY for one in ordered)
    return raw_shader(layer.grey, source.facts.dtype if source.facts else "uint8"), 1.0 if covers else 0.5


def _membranes(ordered: Sequence[Layer]) -> list[str]:
    """The names of the membrane layers in the order in which they are given colours: those that are seen come first."""
    membranes = [layer.source for layer in ordered if layer.source.role is Role.MEMBRANE]
    return [source.name for source in sorted(membranes, key=lambda source: not source.visible)]


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
