"""Another voxel size of a volume: its shape, what each of its boxes is made of, and sizes that are refused."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Literal

from volseg.blocks import Box, Zyx, ZyxFloat, is_voxel_size, to_zyx
from volseg.errors import ConfigError
from volseg.ops.resample import mean_taps, mode_taps

if TYPE_CHECKING:
    from volseg.ops.resample import Taps

_MAX_FACTOR = 64
_MAX_VOXELS = 1 << 62
_DENOMINATOR = 10**6
"""Sizes and their ratios are rounded to fractions of at most this denominator."""


@dataclass(frozen=True, slots=True)
class Resampling:
    """Another voxel size of a volume; its physical extent and the corner of its first voxel stay.

    Attributes:
        source_nm: voxel size (z, y, x) of the source in nanometres.
        target_nm: of the result.
        kind: `mean` for grey values: of the area, or along straight lines where voxels become smaller; `mode` for
            labels: the most frequent, or the nearest.
    """

    source_nm: ZyxFloat
    target_nm: ZyxFloat
    kind: Literal["mean", "mode"] = "mean"

    @property
    def ratios(self) -> tuple[Fraction, Fraction, Fraction]:
        """Sizes of the result's voxels over those of the source, along z, y, x."""
        z, y, x = (
            (_fraction(to) / _fraction(size)).limit_denominator(_DENOMINATOR)
            for to, size in zip(self.target_nm, self.source_nm, strict=True)
        )
        return z, y, x

    @property
    def is_identity(self) -> bool:
        """Whether all sizes stay."""
        return set(self.ratios) == {Fraction(1)}

    def check(self, shape: Zyx, option: str) -> None:
        """Refuse sizes that make no sense.

        Args:
            shape: of the source.
            option: that states the size, for the message.

        Raises:
            ConfigError: a size below 0.1 nm, another one by a factor above 64, or above 2^62 voxels.
        """
        if not is_voxel_size(self.target_nm):
            raise ConfigError(f"{option}: voxels of {_nm(self.target_nm)} nm are below 0.1 nm; give larger ones")
        sizes = f"voxels of {_nm(self.source_nm)} nm as {_nm(self.target_nm)} nm"
        if any(not Fraction(1, _MAX_FACTOR) <= ratio <= _MAX_FACTOR for ratio in self.ratios):
            raise ConfigError(f"{option}: {sizes} change by a factor above {_MAX_FACTOR}; give sizes that are nearer")
        if prod(self.shape(shape)) > _MAX_VOXELS:
            raise ConfigError(f"{option}: {sizes} make {self.shape(shape)}, above 2^62 voxels; give larger ones")

    def shape(self, shape: Zyx) -> Zyx:
        """Voxels of the result: the last one along an axis may lie in the source in part only.

        >>> Resampling((50, 4, 4), (50, 8, 3)).shape((10, 33, 30))
        (10, 17, 40)
        """
        return to_zyx(-(-n * r.denominator // r.numerator) for n, r in zip(shape, self.ratios, strict=True))

    def taps(self, shape: Zyx, box: Box) -> tuple[Taps, Taps, Taps]:
        """Taps along z, y, x of a box of the result.

        Args:
            shape: of the source.
            box: not empty, inside the result.
        """
        make = mean_taps if self.kind == "mean" else mode_taps
        z, y, x = map(make, self.ratios, shape, box.start, box.stop)
        return z, y, x

    def source_box(self, shape: Zyx, box: Box) -> Box:
        """Voxels of the source that a box of the result is made of.

        >>> str(Resampling((50, 4, 4), (50, 8, 3)).source_box((10, 33, 30), Box((0, 1, 4), (1, 3, 8))))
        '0:1,2:6,2:7'
        """
        spans = [taps.span for taps in self.taps(shape, box)]
        return Box(to_zyx(low for low, _ in spans), to_zyx(stop for _, stop in spans))

    def __str__(self) -> str:
        ways = ("mean", "straight lines") if self.kind == "mean" else ("most frequent label", "nearest label")
        used = dict.fromkeys(ways[ratio < 1] for ratio in self.ratios if ratio != 1)
        return f"voxels of {_nm(self.source_nm)} nm resampled to {_nm(self.target_nm)} nm ({' and '.join(used)})"


def _fraction(size: float) -> Fraction:
    return Fraction(size).limit_denominator(_DENOMINATOR)


def _nm(size: ZyxFloat) -> str:
    return " x ".join(f"{length:g}" for length in size)
