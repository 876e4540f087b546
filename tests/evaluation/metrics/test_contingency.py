"""Contingency tables equal counting voxel by voxel, for all ids."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.evaluation.metrics.contingency import contingency

if TYPE_CHECKING:
    from volseg.evaluation.metrics.contingency import Contingency

PAIRS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=40)


def overlaps(table: Contingency) -> dict[tuple[int, int], int]:
    return {(int(t), int(p)): int(n) for t, p, n in zip(table.truth, table.proposal, table.voxels, strict=True)}


@given(PAIRS, st.sampled_from([0, 1000, 2**40]))
def test_pairs_equal_a_count_voxel_by_voxel(pairs: list[tuple[int, int]], offset: int) -> None:
    shifted = [(t + offset, p) for t, p in pairs]
    truth, proposal = np.array(shifted, np.int64).reshape(-1, 2).T
    table = contingency(truth, proposal)
    assert overlaps(table) == Counter(shifted)
    assert table.truth_sizes.tolist() == sorted(Counter(t for t, _ in shifted).values())
    assert table.proposal_sizes.tolist() == sorted(Counter(p for _, p in shifted).values())


@given(PAIRS, st.integers(0, 40))
def test_parts_merge_into_the_whole(pairs: list[tuple[int, int]], cut: int) -> None:
    truth, proposal = np.array(pairs, np.int64).reshape(-1, 2).T
    parts = contingency(truth[:cut], proposal[:cut]).merge(contingency(truth[cut:], proposal[cut:]))
    assert overlaps(parts) == overlaps(contingency(truth, proposal))


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "uint32", "int64", "uint64"])
def test_every_integer_type_is_counted(dtype: str) -> None:
    ids = np.array([[0, 1], [1, 1]], dtype)
    assert overlaps(contingency(ids, ids)) == {(0, 0): 1, (1, 1): 3}


def test_large_uint64_ids_stay_distinct() -> None:
    high = np.array([2**64 - 1, 2**64 - 2, 2**64 - 1], np.uint64)
    table = contingency(high, high)
    assert overlaps(table.merge(table)) == {(2**64 - 1, 2**64 - 1): 4, (2**64 - 2, 2**64 - 2): 2}


def test_the_foreground_excludes_id_0() -> None:
    table = contingency(np.array([0, 0, 3]), np.array([1, 2, 0]))
    assert overlaps(table.foreground()) == {(3, 0): 1}
