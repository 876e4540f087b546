"""The learning rate rises, falls, and reaches its ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.config.train_tables import ScheduleSettings
from volseg.training.lr_schedule import rate_at

NAMES = st.sampled_from(["cosine", "polynomial", "step", "constant"])
SHARES = st.floats(0, 1)


def schedule(name: str, warm_up: float, **more: Any) -> ScheduleSettings:
    return ScheduleSettings(name=name, warm_up=warm_up, **more)


@given(NAMES, SHARES, SHARES, st.floats(0, 1, exclude_max=True))
def test_the_rate_is_a_share_and_never_nothing_before_the_end(
    name: str, warm_up: float, near: float, share: float
) -> None:
    rates = [rate_at(at, schedule(name, warm_up)) for at in (share, min(warm_up, near), float(np.nextafter(1, 0)))]
    assert all(0 < rate <= 1 for rate in rates)


@given(NAMES, SHARES, SHARES, st.floats(0.01, 0.9))
def test_the_rate_falls_after_the_warm_up(name: str, one: float, other: float, warm_up: float) -> None:
    first, then = sorted(max(share, warm_up) for share in (one, other))
    assert rate_at(first, schedule(name, warm_up)) >= rate_at(then, schedule(name, warm_up))


@given(st.sampled_from(["cosine", "polynomial", "constant"]), SHARES, SHARES)
def test_the_rate_rises_in_the_warm_up(name: str, one: float, other: float) -> None:
    first, then = sorted((one, other))
    assert rate_at(first, schedule(name, 1)) <= rate_at(then, schedule(name, 1))


@given(st.sampled_from(["cosine", "polynomial", "constant"]), st.floats(0.01, 0.99))
def test_the_rate_is_full_where_the_warm_up_ends_from_either_side(name: str, warm_up: float) -> None:
    for share in (warm_up - 1e-9, warm_up, warm_up + 1e-9):
        assert rate_at(share, schedule(name, warm_up)) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("name", ["cosine", "polynomial", "step", "constant"])
def test_the_warm_up_begins_at_a_tenth_and_without_one_the_rate_is_full(name: str) -> None:
    assert rate_at(0, schedule(name, 0.1)) == pytest.approx(0.1)
    assert rate_at(0.05, schedule(name, 0.1)) == pytest.approx(0.55)
    assert rate_at(0, schedule(name, 0)) == 1


@pytest.mark.parametrize(
    ("name", "middle", "end"),
    [("cosine", 0.5, 0), ("polynomial", 0.5**0.9, 0), ("step", 0.1, 0.01), ("constant", 1, 1)],
)
def test_each_schedule_goes_through_its_middle_to_its_end(name: str, middle: float, end: float) -> None:
    assert rate_at(0.6, schedule(name, 0.2)) == pytest.approx(middle)
    for share in (1, 1.5):
        assert rate_at(share, schedule(name, 0.2)) == pytest.approx(end, rel=1e-12, abs=0)


def test_steps_fall_at_their_milestones_even_within_the_warm_up() -> None:
    steps = schedule("step", 0.5, milestones=(0.25, 0.75), factor=0.5)
    assert [rate_at(share, steps) for share in (0.5, 0.7499, 0.75, 1)] == [0.5, 0.5, 0.25, 0.25]
    assert rate_at(0.25, steps) == pytest.approx(0.5 * 0.55)
