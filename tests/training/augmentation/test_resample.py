"""Moving voxels: mirrored as numpy does, and exact for labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.augmentation.samples import make_sample
from volseg.blocks import mirror_index
from volseg.training.augmentation.resample import (
    apply_to_patches,
    flat_indices,
    gather_voxels,
    interpolate,
    move_sections,
    reflect_indices,
)


@given(st.integers(1, 9))
def test_indices_are_mirrored_as_in_the_block_geometry(length: int) -> None:
    indices = torch.arange(-40, 40)
    assert reflect_indices(indices, length).tolist() == [mirror_index(int(index), length) for index in indices]


def _beyond(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of a patch that overhangs a section on all sides but keeps its size."""
    return torch.arange(height).view(1, 1, -1, 1) - 4, torch.arange(width).view(1, 1, 1, -1) + 3


def test_labels_beyond_the_edge_are_mirrored() -> None:
    labels = make_sample((2, 3, 17, 19)).labels
    wide = np.pad(labels.numpy(), ((0, 0), (0, 0), (4, 4), (3, 3)), mode="reflect")
    rows, columns = _beyond(17, 19)
    result = gather_voxels(labels, flat_indices(rows, columns, (17, 19)).expand(2, -1, -1))
    np.testing.assert_array_equal(result, wide[:, :, :17, 6:25])


def test_interpolation_at_whole_voxels_is_exact_and_mirrored() -> None:
    raw = make_sample((2, 3, 17, 19)).raw
    rows, columns = (part[:, 0].float().expand(2, 17, 19) for part in _beyond(17, 19))
    wide = np.pad(raw.numpy(), ((0, 0), (0, 0), (4, 4), (3, 3)), mode="reflect")
    np.testing.assert_allclose(interpolate(raw, rows, columns), wide[:, :, :17, 6:25], atol=1e-4)


def test_interpolation_keeps_more_grain_than_bilinear() -> None:
    raw = make_sample((1, 1, 64, 64)).raw
    rows = torch.arange(64.0).view(1, -1, 1).expand(1, 64, 64) + 0.5
    columns = torch.arange(64.0).view(1, 1, -1).expand(1, 64, 64)
    bilinear = (raw[0, 0, 1:] + raw[0, 0, :-1]) / 2
    assert interpolate(raw, rows, columns).std() > 1.1 * bilinear.std()


@pytest.mark.parametrize("indices", [[1], [0, 2], [0, 1, 2]])
def test_only_selected_entries_change(indices: list[int]) -> None:
    tensor = torch.zeros(3, 2)
    after = apply_to_patches(tensor, indices, lambda x: x + 1)
    assert after[:, 0].tolist() == [float(i in indices) for i in range(3)]
    assert not tensor.any()


def test_only_selected_sections_move() -> None:
    sample = make_sample((2, 3, 16, 16))
    rows, columns = torch.arange(16).view(1, 1, -1, 1), torch.arange(16).flip(0)
    after = move_sections(sample, [1, 5], rows.expand(2, 1, 16, 1), columns)
    for section in range(6):
        patch, z = divmod(section, 3)
        before = sample.labels[patch, z]
        assert torch.equal(after.labels[patch, z], before.flip(-1) if section in (1, 5) else before)
