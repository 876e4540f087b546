"""Voxel size and translation that TIFF files state: OME-TIFF, ImageJ, and the baseline tags."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

from volseg.storage.place import Place
from volseg.storage.units import length_nm

if TYPE_CHECKING:
    from collections.abc import Mapping

    import tifffile


def tiff_place(tiff: tifffile.TiffFile) -> Place:
    """Return the place of the first image of an open TIFF, its pages being the sections."""
    if tiff.ome_metadata:
        return _ome_place(tiff.ome_metadata)
    if tiff.imagej_metadata:
        return _imagej_place(tiff.imagej_metadata, _pixels_per_unit(tiff))
    return _tag_place(tiff)


def _ome_place(text: str) -> Place:
    """Read PhysicalSizeX, .. (by default in micrometres), and PositionX, .. of the first plane (no default unit)."""
    try:
        pixels = ElementTree.fromstring(text).find("{*}Image/{*}Pixels")
        if pixels is None:
            return Place(problem="its OME metadata describe no pixels")
        missing = [axis for axis in "ZYX" if f"PhysicalSize{axis}" not in pixels.attrib]
        if missing:
            return Place(problem=f"its OME metadata state no PhysicalSize{missing[0]}" if len(missing) < 3 else "")
        scale = [float(pixels.attrib[f"PhysicalSize{axis}"]) for axis in "ZYX"]
        units = [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"]
        plane = next((p for p in pixels.findall("{*}Plane") if p.get("TheZ", "0") == "0"), None)
        positions = {axis: plane.get(f"Position{axis}") for axis in "ZYX"} if plane is not None else {}
        start = [0.0, 0.0, 0.0]
        for i, (axis, position) in enumerate(positions.items()):
            if plane is None or position is None or float(position) == 0:
                continue
            unit = plane.get(f"Position{axis}Unit", "reference frame")
            length, voxel_unit = length_nm(unit), length_nm(units[i])
            if length is None:
                return Place(problem=f"its OME metadata state Position{axis} {position} in {unit!r}")
            start[i] = float(position) * length / (voxel_unit or 1.0)
        return Place.stated(scale, start, units)
    except (TypeError, ValueError, ElementTree.ParseError) as error:
        return Place(problem=f"its OME metadata cannot be read ({error})")


def _imagej_place(metadata: Mapping[str, Any], pixels_per_unit: tuple[float, float] | None) -> Place:
    """Read `spacing`, `unit`, the resolution, and the origin in voxels, which lies at 0."""
    unit = str(metadata.get("unit", "")).replace("\\u00B5", "µ").replace("\\u00C5", "Å")
    if unit in ("", "pixel", "pixels") or pixels_per_unit is None:
        scale: list[Any] = [1.0, 1.0, 1.0]
        unit = ""
    elif "spacing" not in metadata:
        return Place(problem="its ImageJ metadata state no spacing of the sections")
    else:
        scale = [metadata["spacing"], *(1 / pixels for pixels in pixels_per_unit)]
    try:
        scale[0] = abs(float(scale[0]))  # ImageJ writes it negative for stacks in reverse order
        start = [0.0 - float(metadata.get(f"{axis}origin", 0)) * size for axis, size in zip("zyx", scale, strict=True)]
        return Place.stated(scale, start, [unit] * 3)
    except (TypeError, ValueError) as error:
        return Place(problem=f"its ImageJ metadata cannot be read ({error})")


def _tag_place(tiff: tifffile.TiffFile) -> Place:
    """Read XPosition and YPosition, in voxels: the tags state no distance of sections."""
    tags, pixels_per_unit = tiff.pages.first.tags, _pixels_per_unit(tiff)
    positions = [_ratio(tags[name].value) if name in tags else 0.0 for name in ("YPosition", "XPosition")]
    if not any(positions):
        return Place()
    if pixels_per_unit is None:
        return Place(problem="it states a position, but no resolution")
    y, x = (position * pixels for position, pixels in zip(positions, pixels_per_unit, strict=True))
    return Place.stated([1.0, 1.0, 1.0], [0.0, y, x], [""] * 3)


def _pixels_per_unit(tiff: tifffile.TiffFile) -> tuple[float, float] | None:
    """Return the resolution along (y, x); None if a tag is missing or 0."""
    tags = tiff.pages.first.tags
    y, x = (_ratio(tags[name].value) if name in tags else 0.0 for name in ("YResolution", "XResolution"))
    return (y, x) if y > 0 and x > 0 else None


def _ratio(value: tuple[int, int]) -> float:
    numerator, denominator = value
    return numerator / denominator if denominator else 0.0
