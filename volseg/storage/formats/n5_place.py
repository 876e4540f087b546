"""Axes, voxel size and translation of N5 datasets, by the conventions of the programs that write them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from volseg.storage.axes import named_axes
from volseg.storage.place import Place

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volseg.storage.axes import AxisLayout

_XYZ = ("x", "y", "z")


def n5_axes(attributes: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of the stored axes, the fastest first; x, y, z if three have no names, else empty."""
    transform = attributes.get("transform")
    step = _step(transform) if isinstance(transform, dict) else 1
    stored_names = list(transform.get("axes") or [])[::step] if isinstance(transform, dict) else None
    names = named_axes(count, attributes.get("axes"), stored_names)
    return names or (_XYZ if count == 3 else ())


def n5_place(attributes: Mapping[str, Any], group: Mapping[str, Any], layout: AxisLayout, level: int | None) -> Place:
    """Return the place of a dataset.

    `transform` (COSEM) names its axes. `pixelResolution` and `resolution` are along the stored axes; those of
    n5-viewer are of level 0, and multiplied by `downsamplingFactors`, or the group's `scales`.

    Args:
        attributes: of the dataset.
        group: attributes of the group above it.
        layout: of the dataset.
        level: its number in the group; None if it is no level.
    """
    try:
        return _transform_place(attributes, layout) or _resolution_place(attributes, group, layout, level)
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        return Place(problem=f"its N5 attributes state no place that can be read ({error!r:.80})")


def _transform_place(attributes: Mapping[str, Any], layout: AxisLayout) -> Place | None:
    transform = attributes.get("transform")
    if not isinstance(transform, dict) or not transform.get("scale"):
        return None
    values = [list(transform.get(key) or []) for key in ("scale", "translate", "units")]
    scale, start, units = (value or [0.0] * len(values[0]) for value in values)
    names, stored = list(transform.get("axes") or []), n5_axes(attributes, len(scale))
    is_named = bool(names) and sorted(names) == sorted(stored)
    order = [names.index(name) for name in stored] if is_named else list(range(len(scale)))[:: _step(transform)]
    return Place.stated(*(layout.zyx([value[axis] for axis in order]) for value in (scale, start, units)))


def _step(transform: Mapping[str, Any]) -> int:
    """-1 if a transform lists its axes in C order, the slowest first, as most do; else 1."""
    return 1 if transform.get("order") == "F" else -1


def _resolution_place(
    attributes: Mapping[str, Any], group: Mapping[str, Any], layout: AxisLayout, level: int | None
) -> Place:
    found = next(
        (
            (owner, key)
            for owner in (attributes, group)
            for key in ("pixelResolution", "resolution")
            if owner.get(key) is not None
        ),
        None,
    )
    if found is None:
        return Place()
    owner, key = found
    stated = owner[key]
    sizes, unit = (stated["dimensions"], stated.get("unit")) if isinstance(stated, dict) else (stated, None)
    default = "nm" if key == "resolution" else unit
    units = owner.get("units") or group.get("units") or [unit or default] * len(sizes)
    units = [units] * len(sizes) if isinstance(units, str) else units
    factors = _factors(attributes, group, len(sizes), level)
    scale = [size * factor for size, factor in zip(sizes, factors, strict=True)]
    shift = [(factor - 1) / 2 * size for size, factor in zip(sizes, factors, strict=True)]
    offset = attributes.get("offset") or [0.0] * len(sizes)
    start = [a + b for a, b in zip(offset, shift, strict=True)]
    return Place.stated(layout.zyx(scale), layout.zyx(start), layout.zyx(list(units)))


def _factors(attributes: Mapping[str, Any], group: Mapping[str, Any], count: int, level: int | None) -> Sequence[float]:
    """By how much a dataset is coarser than the voxel size that is stated for it, along the stored axes."""
    factors = attributes.get("downsamplingFactors")
    if factors is None and level is not None and "resolution" not in attributes and "pixelResolution" not in attributes:
        scales = group.get("scales") or group.get("downsamplingFactors")
        factors = scales[level] if scales else None
    return [1.0] * count if factors is None else factors
