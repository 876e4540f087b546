"""How far a prediction may differ from the exact one."""

from __future__ import annotations

from dataclasses import dataclass

from volseg.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Tolerance:
    """Largest accepted difference from the exact result.

    Attributes:
        fraction: minimum fraction of voxels within one grey level, above 0 and up to 1.
        max_error: maximum difference of any voxel, in grey levels.

    Raises:
        ConfigError: a value out of range.

    >>> Tolerance(0.99, 8).holds(fraction=0.995, max_error=3), Tolerance(0.99, 8).holds(0.995, 9)
    (True, False)
    """

    fraction: float = 0.999
    max_error: float = 8

    def __post_init__(self) -> None:
        if not (0 < self.fraction <= 1 and 0 <= self.max_error <= 255):
            raise ConfigError(
                f"tolerance {100 * self.fraction:g},{self.max_error:g} is out of range; give a percentage of voxels "
                "above 0 and up to 100, and a difference of 0 to 255 grey levels, such as 99.9,8"
            )

    def __str__(self) -> str:
        percent = f"{100 * self.fraction:g} %"
        return f"{percent} of voxels within one grey level, and none off by more than {self.max_error:g}"

    def holds(self, fraction: float, max_error: float) -> bool:
        """Whether a result with this fraction of voxels within one grey level, and this error, is accepted."""
        return fraction >= self.fraction and max_error <= self.max_error
