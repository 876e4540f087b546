"""Learning-rate schedule."""

from __future__ import annotations

from math import pi, sin
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from volseg.config.train_tables import ScheduleSettings

_WARM_UP_START = 0.1
"""Factor at the start of the warm-up; above 0, so that the first step has an effect."""


def learning_rate_factor(progress: float, settings: ScheduleSettings) -> float:
    """Compute the factor of the learning rate, in [0, 1]; it is 0 at the very end at most.

    It rises linearly from 0.1 to 1 in the warm-up and then falls: `cosine` along half a wave to 0 (Loshchilov and
    Hutter 2017, without restarts), `polynomial` as (1 - progress after the warm-up)^power to 0, `step` by a factor at
    each milestone, and `constant` not at all. Milestones are fractions of the whole training; those within the
    warm-up apply there too.

    Args:
        progress: fraction of the training that is done, clipped to 0..1.
        settings: the `[schedule]` table.
    """
    progress = min(max(progress, 0.0), 1.0)
    in_warm_up = progress < settings.warm_up
    rise = _WARM_UP_START + (1 - _WARM_UP_START) * progress / settings.warm_up if in_warm_up else 1.0
    remaining = (1 - progress) / (1 - settings.warm_up) if progress > settings.warm_up else 1.0
    return rise * _decay(progress, remaining, settings)


def _decay(progress: float, remaining: float, settings: ScheduleSettings) -> float:
    """Factor after the warm-up; `remaining` is the fraction of the time after the warm-up that is left."""
    if settings.name == "cosine":
        return sin(pi / 2 * remaining) ** 2  # (1 + cos) / 2 would round to 0 before the end
    if settings.name == "polynomial":
        return float(remaining**settings.power)
    if settings.name == "step":
        return float(settings.factor ** sum(progress >= milestone for milestone in settings.milestones))
    return 1.0
