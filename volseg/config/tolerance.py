"""How far a prediction may differ from the exact one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg.prediction.autotune.halo_curve import Measured


@dataclass(frozen=True, slots=True)
class Tolerance:
    """How far blocks may differ from the exact result.

    Attributes:
        share: of voxels that must stay within one grey level.
        greatest: difference that any voxel may have, in grey levels.
    """

    share: float = 0.999
    greatest: float = 8

    def __post_init__(self) -> None:
        if not (0 < self.share <= 1 and 0 <= self.greatest <= 255):
            raise ConfigError(
                f"halo tolerance {self.share:%},{self.greatest:g} makes no sense; give a share of voxels above 0 % and "
                "up to 100 %, and a difference of 0 to 255 grey levels, such as 99.9,8"
            )

    def __str__(self) -> str:
        return f"{100 * self.share:g} % of voxels within one grey level, and none off by more than {self.greatest:g}"

    def holds(self, point: Measured) -> bool:
        """Whether a halo is good enough."""
        return point.share >= self.share and point.greatest <= self.greatest
