"""Schedules: warm-up, decay, and values at the ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.config.train_tables import ScheduleSettings
from volseg.training.lr_schedule import learning_rate_factor

NAMES = st.sampled_from(["cosine", "polynomial", "step", "constant"])
FRACTIONS = st.floats(0, 1)


def schedule(name: str, warm_up: float, **more: Any) -> ScheduleSettings:
    return ScheduleSettings(name=name, warm_up=warm_up, **more)


@given(NAMES, FRACTIONS, FRACTIONS, st.floats(0, 1, exclude_max=True))
def test_the_factor_is_in_0_to_1_and_above_0_before_the_end(
    name: str, warm_up: float, near: float, progress: float
) -> None:
    rates = [
        learning_rate_factor(at, schedule(name, warm_up))
        for at in (progress, min(warm_up, near), float(np.nextafter(1, 0)))
    ]
    assert all(0 < rate <= 1 for rate in rates)


@given(NAMES, FRACTIONS, FRACTIONS, st.floats(0.01, 0.9))
def test_the_factor_falls_after_the_warm_up(name: str, one: float, other: float, warm_up: float) -> None:
    first, then = sorted(max(progress, warm_up) for progress in (one, other))
    assert learning_rate_factor(first, schedule(name, warm_up)) >= learning_rate_factor(then, schedule(name, warm_up))


@given(st.sampled_from(["cosine", "polynomial", "constant"]), FRACTIONS, FRACTIONS)
def test_the_factor_rises_in_the_warm_up(name: str, one: float, other: float) -> None:
    first, then = sorted((one, other))
    assert learning_rate_factor(first, schedule(name, 1)) <= learning_rate_factor(then, schedule(name, 1))


@given(st.sampled_from(["cosine", "polynomial", "constant"]), st.floats(0.01, 0.99))
def test_the_factor_is_1_at_the_end_of_the_warm_up_from_both_sides(name: str, warm_up: float) -> None:
    for progress in (warm_up - 1e-9, warm_up, warm_up + 1e-9):
        assert learning_rate_factor(progress, schedule(name, warm_up)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["cosine", "polynomial", "step", "constant"])
def test_the_warm_up_starts_at_a_tenth_and_without_it_the_factor_is_1(name: str) -> None:
    assert learning_rate_factor(0, schedule(name, 0.1)) == pytest.approx(0.1)
    assert learning_rate_factor(0.05, schedule(name, 0.1)) == pytest.approx(0.55)
    assert learning_rate_factor(0, schedule(name, 0)) == 1


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [("cosine", 0.5, 0), ("polynomial", 0.5**0.9, 0), ("step", 0.1, 0.01), ("constant", 1, 1)],
)
def test_each_schedule_has_its_values_in_the_middle_and_at_the_end(name: str, middle: float, end: float) -> None:
    assert learning_rate_factor(0.6, schedule(name, 0.2)) == pytest.approx(middle)
    for progress in (1, 1.5):
        assert learning_rate_factor(progress, schedule(name, 0.2)) == pytest.approx(end, rel=1e-12, abs=0)


def test_milestones_apply_also_within_the_warm_up() -> None:
    steps = schedule("step", 0.5, milestones=(0.25, 0.75), factor=0.5)
    assert [learning_rate_factor(progress, steps) for progress in (0.5, 0.7499, 0.75, 1)] == [0.5, 0.5, 0.25, 0.25]
    assert learning_rate_factor(0.25, steps) == pytest.approx(0.5 * 0.55)
