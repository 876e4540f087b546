"""Where a volume lies: voxel size and translation, as its metadata state them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import TYPE_CHECKING, Any

from volseg.blocks import ZyxFloat, is_voxel_size
from volseg.storage.units import length_nm

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volseg.storage.axes import AxisLayout

_AXES = ("z", "y", "x")
_ARRAY_UNITS = {"voxel_size": "nm", "resolution": "nm", "element_size_um": "um"}
"""Attributes of arrays and datasets with a voxel size, and their default unit: of funlib, CREMI and ilastik."""
_SIZE_TOLERANCE = 0.1


@dataclass(frozen=True, slots=True)
class Place:
    """Voxel i along an axis lies at `scale` * i + `translation`; along (z, y, x).

    Attributes:
        scale: voxel size in nanometres, or in an unknown unit.
        translation: of voxel 0, in the same unit.
        is_nm: whether they are in nanometres.
        problem: why they are not; empty if nothing is stated.
    """

    scale: ZyxFloat = (1.0, 1.0, 1.0)
    translation: ZyxFloat = (0.0, 0.0, 0.0)
    is_nm: bool = False
    problem: str = ""

    @classmethod
    def of_nm(cls, voxel_nm: ZyxFloat | None, translation_nm: ZyxFloat | None = None) -> Place:
        """Return the place of a voxel size and a translation in nanometres, None if they are not stated."""
        if voxel_nm is None:
            return cls()
        return cls.stated(voxel_nm, translation_nm or (0.0, 0.0, 0.0), ["nm"] * 3)

    @classmethod
    def stated(cls, scale: Sequence[Any], translation: Sequence[Any], units: Sequence[object]) -> Place:
        """Return the place that metadata state, each along (z, y, x), converted to nanometres if that is possible.

        Raises:
            TypeError, ValueError: other than three numbers.
        """
        size, start = _three(scale), _three(translation)
        if not all(isfinite(s) and s > 0 and isfinite(t) for s, t in zip(size, start, strict=True)):
            return cls(problem=f"it states a scale of {_text(size)} and a translation of {_text(start)}")
        factors = [length_nm(unit) for unit in units]
        for axis, unit, factor in zip(_AXES, units, factors, strict=True):
            if factor is None:
                problem = f"it states no length as the unit of axis {axis}, but {unit!r}" if unit else ""
                return cls(size, start, problem=problem or f"it states no unit of axis {axis}")
        z, y, x = (factor or 0.0 for factor in factors)
        size_nm = size[0] * z, size[1] * y, size[2] * x
        if not is_voxel_size(size_nm):
            return cls(size, start, problem=f"it states voxels of {_text(size_nm)} nm, below 0.1 nm")
        return cls(size_nm, (start[0] * z, start[1] * y, start[2] * x), is_nm=True)

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Voxel size (z, y, x) in nanometres; None if not known."""
        return self.scale if self.is_nm else None

    @property
    def translation_nm(self) -> ZyxFloat | None:
        """Translation (z, y, x) of voxel 0 in nanometres; None if not known."""
        return self.translation if self.is_nm else None

    @property
    def translation_voxels(self) -> ZyxFloat:
        """Translation (z, y, x) in voxels."""
        z, y, x = (start / size for start, size in zip(self.translation, self.scale, strict=True))
        return z, y, x

    def with_voxel_nm(self, voxel_nm: ZyxFloat) -> Place:
        """Return the place with another voxel size; the translation stays the same in voxels.

        >>> Place((1, 1, 1), (20, 100, 200)).with_voxel_nm((50, 4, 4)).translation_nm
        (1000.0, 400.0, 800.0)
        """
        z, y, x = (start * size for start, size in zip(self.translation_voxels, voxel_nm, strict=True))
        return self if voxel_nm == self.voxel_nm else Place(voxel_nm, (z, y, x), is_nm=True)

    def moved(self, voxels: Sequence[int]) -> Place:
        """Return the place of a part of the volume that begins at a voxel (z, y, x).

        >>> Place((50, 4, 4), (1000, 0, 0)).moved((1, 0, 10)).translation
        (1050, 0, 40)
        """
        z, y, x = (start + size * n for start, size, n in zip(self.translation, self.scale, voxels, strict=True))
        return replace(self, translation=(z, y, x))

    def resampled(self, voxel_nm: ZyxFloat) -> Place:
        """Return the place of voxels of another size in nanometres whose first one begins at the same corner.

        >>> Place((50, 4, 4), (0, 0, 100), is_nm=True).resampled((50, 8, 2)).translation
        (0.0, 2.0, 99.0)
        """
        z, y, x = (t + (to - size) / 2 for t, to, size in zip(self.translation, voxel_nm, self.scale, strict=True))
        return replace(self, scale=voxel_nm, translation=(z, y, x))

    def transposed(self, axes: Sequence[int]) -> Place:
        """Return the place with axis `axes[i]` of (z, y, x) as axis i, and what is wrong with it kept.

        >>> Place((50, 4, 8)).transposed([2, 1, 0]).scale
        (8, 4, 50)
        """
        z, y, x = axes
        scale, translation = ((values[z], values[y], values[x]) for values in (self.scale, self.translation))
        return replace(self, scale=scale, translation=translation)

    def differs(self, other: Place) -> bool:
        """Whether both are known, and voxel sizes differ by more than 10 % or translations by over half a voxel."""
        if not (self.is_nm and other.is_nm):
            return False
        return any(
            abs(a - b) > _SIZE_TOLERANCE * min(a, b) or abs(s - t) > max(a, b) / 2
            for a, b, s, t in zip(self.scale, other.scale, self.translation, other.translation, strict=True)
        )

    def __str__(self) -> str:
        unit = " nm" if self.is_nm else ""
        moved = f" at {', '.join(f'{start:g}' for start in self.translation)}{unit}" if any(self.translation) else ""
        return f"voxels of {_text(self.scale)}{unit}{moved}"


class Placed:
    """A volume with a place: its voxel size and translation in nanometres."""

    place: Place

    @property
    def voxel_nm(self) -> ZyxFloat | None:
        """Voxel size (z, y, x) in nanometres; None if not known."""
        return self.place.voxel_nm

    @property
    def translation_nm(self) -> ZyxFloat | None:
        """Translation (z, y, x) of the first voxel in nanometres; None if not known."""
        return self.place.translation_nm


def place_of(volume: Any) -> Place:
    """Return the place of a volume of any reader; those of plug-ins may state a voxel size only."""
    place = getattr(volume, "place", None)
    if isinstance(place, Place):
        return place
    return Place.of_nm(volume.voxel_nm, getattr(volume, "translation_nm", None))


def array_place(attributes: Mapping[str, Any], layout: AxisLayout) -> Place:
    """Return the place that the attributes of an array state, as funlib, daisy, CREMI and ilastik write them.

    Args:
        attributes: with `voxel_size`, `resolution` or `element_size_um`, and `offset` and `units`.
        layout: of the array; the values are along all of its axes, or the spatial ones in stored order.
    """
    key = next((key for key in _ARRAY_UNITS if attributes.get(key) is not None), None)
    if key is None:
        return Place()
    try:
        scale, offset = attributes[key], attributes.get("offset", [0, 0, 0])
        units = attributes.get("units", _ARRAY_UNITS[key])
        units = [units] * len(scale) if isinstance(units, str) else units
        return Place.stated(layout.zyx(scale), layout.zyx(offset), layout.zyx([str(unit) for unit in units]))
    except (IndexError, KeyError, OverflowError, TypeError, ValueError):
        return Place(
            problem=f"it states {key} {attributes[key]!s:.80}, which is not three numbers with an offset of three"
        )


def _three(values: Sequence[Any]) -> ZyxFloat:
    z, y, x = (1.0 * value for value in values)  # of text, a TypeError
    return z, y, x


def _text(values: Sequence[float]) -> str:
    return " x ".join(f"{value:g}" for value in values)
