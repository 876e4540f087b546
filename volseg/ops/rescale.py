"""Another data type: values are kept, or grey values scaled between stated limits."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_GREY = ("uint8", "uint16", "int16", "float32")
_KINDS = "--range needs grey values of {grey} and a --dtype of 8 or 16 bits; leave it out for {source} as {target}"


@dataclass(frozen=True, slots=True)
class Rescale:
    """How voxels of one type become those of another.

    Attributes:
        source: name of the type that is read.
        target: name of the type that is written.
        limits: values that become the smallest and the largest of `target`; None to keep the values.
    """

    source: str
    target: str
    limits: tuple[float, float] | None = None

    @classmethod
    def between(cls, source: str, target: str, limits: tuple[float, float] | None = None) -> Rescale:
        """Choose the limits: those given, none if every value fits or the values are labels, else those of the type.

        Raises:
            ConfigError: limits that do not fit the types, or none for floating-point numbers.

        >>> Rescale.between("uint16", "uint8").limits, Rescale.between("uint8", "uint16").limits
        ((0.0, 65535.0), None)
        """
        is_scaled = source in _GREY and target in _GREY and target != "float32"
        if limits is not None:
            if not is_scaled:
                raise ConfigError(_KINDS.format(grey=", ".join(_GREY), source=source, target=target))
            low, high = limits
            if not (isfinite(low) and isfinite(high) and low < high):
                raise ConfigError(f"--range {low:g},{high:g} is no range; write it as LOW,HIGH with LOW below HIGH")
            return cls(source, target, (float(low), float(high)))
        if not is_scaled or np.can_cast(source, target, "safe"):
            if np.dtype(source).kind == "f" and np.dtype(target).kind != "f":
                raise ConfigError(f"--dtype {target} would cut {source}; choose uint8 or uint16 and a --range LOW,HIGH")
            return cls(source, target)
        if np.dtype(source).kind == "f":
            raise ConfigError(f"--dtype {target} of {source} needs limits; give --range LOW,HIGH, such as --range 0,1")
        bounds = np.iinfo(source)
        return cls(source, target, (float(bounds.min), float(bounds.max)))

    def apply(self, voxels: NDArray[Any]) -> tuple[NDArray[Any], int]:
        """Convert voxels (z, y, x); returns the number of those outside the limits, or that do not fit, too.

        A value outside the limits becomes the nearest of them, NaN the smallest value.

        >>> converted, outside = Rescale("uint16", "uint8", (100.0, 355.0)).apply(np.uint16([[[99, 100, 228, 355]]]))
        >>> converted.tolist(), outside
        ([[[0, 0, 128, 255]]], 1)
        """
        if self.limits is None:
            if self.source == self.target:
                return voxels, 0
            kept = voxels.astype(self.target)
            if np.can_cast(self.source, self.target, "safe"):
                return kept, 0
            return kept, int(np.count_nonzero(kept != voxels))
        converted = np.empty(voxels.shape, self.target)
        outside = 0
        for section, into in zip(voxels, converted, strict=True):
            outside += self._scale(section, into)
        return converted, outside

    def _scale(self, section: NDArray[Any], into: NDArray[Any]) -> int:
        low, high = self.limits or (0.0, 0.0)
        bounds = np.iinfo(self.target)
        if section.dtype.kind == "f":
            outside = int(np.count_nonzero(~((section >= low) & (section <= high))))
            into[:] = _scaled(np.nan_to_num(section, nan=low, posinf=high, neginf=low), low, high, bounds)
            return outside
        kinds = np.iinfo(section.dtype)
        values = np.arange(kinds.min, kinds.max + 1)
        table = _scaled(values, low, high, bounds).astype(self.target)
        into[:] = table[section.astype(np.int64) - kinds.min if kinds.min else section]
        if low <= kinds.min and high >= kinds.max:
            return 0
        return int(np.count_nonzero((section < low) | (section > high)))

    def __str__(self) -> str:
        if self.limits is None:
            return self.target if self.source == self.target else f"{self.source} as {self.target}, values kept"
        low, high = self.limits
        bounds = np.iinfo(self.target)
        return f"{self.source} as {self.target}, {low:g} to {high:g} scaled to {bounds.min} to {bounds.max}"


def _scaled(values: NDArray[Any], low: float, high: float, bounds: np.iinfo[Any]) -> NDArray[np.float64]:
    fractions = (values.astype(np.float64) - low) / (high - low)
    scaled: NDArray[np.float64] = np.rint(fractions * (bounds.max - bounds.min)) + bounds.min
    return scaled.clip(bounds.min, bounds.max)
