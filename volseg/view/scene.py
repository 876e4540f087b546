"""Neuroglancer's state as JSON: layers, voxel sizes and the first view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from volseg.storage import Place
from volseg.view.shaders import affinity_shader, membrane_shader, raw_shader, uncertainty_shader
from volseg.view.sources import LayerSource, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.view.local_volume import LocalVolume

_PANEL = (700, 900)
"""Rows and columns of pixels that a view has on a laptop at least."""

_VOXELS_PER_PIXEL = 2
"""Zoomed out further, a volume without coarser levels would make the browser load gigabytes."""

_DRAWING_ORDER = tuple(Role)
_CONTROLS = {"tab": "rendering", "codeVisible": False}


@dataclass(frozen=True, slots=True)
class Layer:
    """A source, its URL in the browser, and the values drawn black and white if it is grey."""

    source: LayerSource
    url: str
    grey: tuple[float, float] | None = None


def scene(layers: Sequence[Layer]) -> dict[str, Any]:
    """Create the state of a new viewer: the middle section of the raw EM or the first volume, the others over it.

    Positions are along (z, y, x), in voxels of the first local volume. A volume without a voxel size gets the place of
    another one of the same shape, or voxels of 1 nm. If no volume states a voxel size, lengths are in voxels.
    """
    ordered = sorted(layers, key=lambda layer: _DRAWING_ORDER.index(layer.source.role))
    volumes = [layer.source.volume for layer in ordered if layer.source.volume is not None]
    raw = [layer.source.volume for layer in ordered if layer.source.role is Role.RAW]
    visible = [layer.source.name for layer in ordered if layer.source.visible]
    unit = "nm" if any(volume.place.is_nm for volume in volumes) or not volumes else ""
    state: dict[str, Any] = {
        "layers": [_layer(layer, ordered, volumes, unit) for layer in ordered],
        "displayDimensions": ["x", "y", "z"],
        "selectedLayer": {"layer": visible[-1], "visible": True, "size": 300},
        "layout": "xy",
        "showAxisLines": False,
        "crossSectionBackgroundColor": "#202020",
        "title": "volseg: " + ", ".join(layer.source.name for layer in layers if layer.source.visible),
    }
    first = next((volume for volume in [*raw, *volumes] if volume is not None), None)
    return state | ({} if first is None else _first_view(first, drawn_place(first, volumes), unit))


def drawn_place(volume: LocalVolume, volumes: Sequence[LocalVolume]) -> Place:
    """Return the place to draw a volume at: its own, or that of another volume of its shape; else in voxels."""
    if volume.place.is_nm:
        return volume.place
    same_shape = (other.place for other in volumes if other.shape == volume.shape and other.place.is_nm)
    return next(same_shape, Place(translation=volume.place.translation_voxels))


def _first_view(volume: LocalVolume, place: Place, unit: str) -> dict[str, Any]:
    voxel = place.scale
    extents = zip(volume.shape[1:], voxel[1:], _PANEL, strict=True)
    scale_to_fit = max(n * size / pixels for n, size, pixels in extents) / min(voxel)
    return {
        "dimensions": {axis: [size, unit] for axis, size in zip("zyx", voxel, strict=True)},
        "crossSectionScale": min(scale_to_fit, _VOXELS_PER_PIXEL * volume.max_downsampling * voxel[2] / min(voxel)),
        # A voxel's centre is a whole number, plus the translation.
        "position": [n // 2 + start for n, start in zip(volume.shape, place.translation_voxels, strict=True)],
    }


def _layer(layer: Layer, ordered: Sequence[Layer], volumes: Sequence[LocalVolume], unit: str) -> dict[str, Any]:
    source, volume = layer.source, layer.source.volume
    state: dict[str, Any] = {"name": source.name, "source": {"url": layer.url}, **_appearance(layer, ordered)}
    if not source.visible:
        state["visible"] = False
    if volume is None:
        return state
    needs_transform = (
        not volume.place.is_nm
        or not volume.is_multiscale
        or (volume.channel_axis is not None and not _is_local(volume, volume.channel_axis))
    )
    if needs_transform:
        state["source"]["transform"] = _transform(volume, drawn_place(volume, volumes), unit)
    if source.channel is not None:
        # One layer per channel: Neuroglancer's shaders read several only if a chunk holds them all.
        local = [axis for axis in volume.layout.other_axes if needs_transform or _is_local(volume, axis)]
        centre = 0.0 if volume.is_multiscale else 0.5
        state["localPosition"] = [centre + (source.channel if axis == volume.channel_axis else 0) for axis in local]
    return state


def _is_local(volume: LocalVolume, axis: int) -> bool:
    """Whether each layer has its own position along an axis in Neuroglancer."""
    return volume.axes[axis].endswith("'")


def _appearance(layer: Layer, ordered: Sequence[Layer]) -> dict[str, Any]:
    role = layer.source.role
    if role is Role.LABELS:
        return {"type": "segmentation", "selectedAlpha": 0.25, "segments": [], "tab": "rendering"}
    if role is Role.UNKNOWN:
        return {"type": "auto"}
    shader, opacity = _shader(layer, ordered)
    blend = {"blend": "additive"} if role is Role.AFFINITY else {}
    return {"type": "image", "shader": shader, "opacity": opacity, **blend, **_CONTROLS}


def _shader(layer: Layer, ordered: Sequence[Layer]) -> tuple[str, float]:
    """Return the shader and the opacity of an image layer."""
    source = layer.source
    if source.role is Role.AFFINITY:
        return affinity_shader(source.channel or 0), 1.0
    if source.role is Role.UNCERTAINTY:
        return uncertainty_shader(), 0.65
    if source.role is Role.MEMBRANE:
        return membrane_shader(_membranes(ordered).index(source.name)), 0.65
    # Affinities lie below the raw EM: if either is hidden, the other has its full colours.
    is_opaque = source.role is Role.RAW and not any(other.source.role is Role.AFFINITY for other in ordered)
    return raw_shader(layer.grey, source.volume.dtype if source.volume else "uint8"), 1.0 if is_opaque else 0.5


def _membranes(ordered: Sequence[Layer]) -> list[str]:
    """Return the names of the membrane layers in the order of their colours: visible layers first."""
    membranes = [layer.source for layer in ordered if layer.source.role is Role.MEMBRANE]
    return [source.name for source in sorted(membranes, key=lambda source: not source.visible)]


def _transform(volume: LocalVolume, place: Place, unit: str) -> dict[str, Any]:
    """Name the axes and state voxel size and translation instead of the metadata.

    Neuroglancer puts the centre of the first voxel of an OME-Zarr at its translation, but the corner of that of a plain
    array at 0: they differ by half a voxel.
    """
    others = volume.layout.other_axes
    order = [*others, *volume.layout.axes]
    scales: list[list[Any]] = [[1, ""]] * len(others) + [[size, unit] for size in place.scale]
    names = [f"d{axis}'" for axis in others] + ["z", "y", "x"]
    drawn = volume.place.translation_voxels if volume.is_multiscale else (0.5, 0.5, 0.5)
    shifts = [0.0] * len(others) + [a - b for a, b in zip(place.translation_voxels, drawn, strict=True)]
    matrix = [
        [float(axis == stored) for stored in range(len(order))] + [shift]
        for axis, shift in zip(order, shifts, strict=True)
    ]
    return {
        "outputDimensions": dict(zip(names, scales, strict=True)),
        "inputDimensions": {name: scales[order.index(axis)] for axis, name in enumerate(volume.axes)},
        "matrix": matrix,
    }
