"""A damaged file of any format is read, or refused in one line; no other error leaves volseg."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.laws.fuzzing import damaged, make_targets, outcome

if TYPE_CHECKING:
    from pathlib import Path


def damage_each(folder: Path, model: Path, seed: int, times: int) -> dict[str, Counter[str]]:
    """Damage each file so many times; returns how often each was read and refused."""
    counts: dict[str, Counter[str]] = {}
    for target in make_targets(folder, model):
        content, random_ = target.file.read_bytes(), random.Random(f"{seed} {target.name}")
        assert outcome(target, content) == "read"
        outcomes = [outcome(target, damaged(content, random_)) for _ in range(times)]
        counts[target.name] = Counter("read" if line == "read" else "refused" for line in outcomes)
        target.file.write_bytes(content)
    return counts


def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, small_model: Path) -> None:
    counts = damage_each(tmp_path, small_model, seed=1, times=20)
    assert all(count["refused"] for count in counts.values()), counts


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_many_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, small_model: Path, seed: int) -> None:
    damage_each(tmp_path, small_model, seed, times=400)
