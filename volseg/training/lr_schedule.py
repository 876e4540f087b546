"""How the learning rate goes over a training."""

from __future__ import annotations

from math import pi, sin
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volseg.config.train_tables import ScheduleSettings

_FIRST = 0.1
"""Share of the full rate with which the warm-up begins, so that the first step learns too."""


def rate_at(share: float, settings: ScheduleSettings) -> float:
    """The learning rate as a share of its full value, in [0, 1]; it is 0 at the very end at most.

    It rises linearly from a tenth, then falls over what is left: `cosine` along half a wave to 0 (Loshchilov and
    Hutter 2017, without restarts), `polynomial` as (1 - share of what is left)^power to 0, `step` by a factor at each
    milestone, and `constant` not at all. Milestones are shares of the whole training, and one within the warm-up
    already counts there.

    Args:
        share: how much of the training is done, 0 to 1; beyond, the nearer end counts.
        settings: the schedule.
    """
    share = min(max(share, 0.0), 1.0)
    rising = share < settings.warm_up
    rise = _FIRST + (1 - _FIRST) * share / settings.warm_up if rising else 1.0
    left = (1 - share) / (1 - settings.warm_up) if share > settings.warm_up else 1.0
    return rise * _fall(share, left, settings)


def _fall(share: float, left: float, settings: ScheduleSettings) -> float:
    """What is left of the full rate, when `left` is what is left of the time after the warm-up."""
    if settings.name == "cosine":
        return sin(pi / 2 * left) ** 2  # (1 + cos) / 2 would be rounded to 0 before the end
    if settings.name == "polynomial":
        return float(left**settings.power)
    if settings.name == "step":
        return float(settings.factor ** sum(share >= milestone for milestone in settings.milestones))
    return 1.0
