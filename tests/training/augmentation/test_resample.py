"""How voxels move: as numpy's mirror says, and by whole voxels where they are labels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.training.augmentation.samples import make_sample
from volseg.blocks import mirror_index
from volseg.training.augmentation.resample import changed, fetch_sections, interpolate, mirror_places, picked, places_of


@given(st.integers(1, 9))
def test_places_are_mirrored_as_everywhere_else(length: int) -> None:
    places = torch.arange(-40, 40)
    assert mirror_places(places, length).tolist() == [mirror_index(int(place), length) for place in places]


def _beyond(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of a patch that overhangs a section on all sides but keeps its size."""
    return torch.arange(height).view(1, 1, -1, 1) - 4, torch.arange(width).view(1, 1, 1, -1) + 3


def test_labels_from_beyond_the_edge_are_the_mirror() -> None:
    labels = make_sample((2, 3, 17, 19)).labels
    wide = np.pad(labels.numpy(), ((0, 0), (0, 0), (4, 4), (3, 3)), mode="reflect")
    rows, columns = _beyond(17, 19)
    found = picked(labels, places_of(rows, columns, (17, 19)).expand(2, -1, -1))
    np.testing.assert_array_equal(found, wide[:, :, :17, 6:25])


def test_interpolation_at_whole_voxels_is_those_voxels_mirror_and_all() -> None:
    raw = make_sample((2, 3, 17, 19)).raw
    rows, columns = (part[:, 0].float().expand(2, 17, 19) for part in _beyond(17, 19))
    wide = np.pad(raw.numpy(), ((0, 0), (0, 0), (4, 4), (3, 3)), mode="reflect")
    np.testing.assert_allclose(interpolate(raw, rows, columns), wide[:, :, :17, 6:25], atol=1e-4)


def test_interpolation_keeps_more_grain_than_a_bilinear_one_would() -> None:
    raw = make_sample((1, 1, 64, 64)).raw
    rows = torch.arange(64.0).view(1, -1, 1).expand(1, 64, 64) + 0.5
    columns = torch.arange(64.0).view(1, 1, -1).expand(1, 64, 64)
    bilinear = (raw[0, 0, 1:] + raw[0, 0, :-1]) / 2
    assert interpolate(raw, rows, columns).std() > 1.1 * bilinear.std()


@pytest.mark.parametrize("which", [[1], [0, 2], [0, 1, 2]])
def test_only_the_chosen_are_changed(which: list[int]) -> None:
    tensor = torch.zeros(3, 2)
    after = changed(tensor, which, lambda some: some + 1)
    assert after[:, 0].tolist() == [float(i in which) for i in range(3)]
    assert not tensor.any()


def test_only_the_chosen_sections_move() -> None:
    sample = make_sample((2, 3, 16, 16))
    rows, columns = torch.arange(16).view(1, 1, -1, 1), torch.arange(16).flip(0)
    after = fetch_sections(sample, [1, 5], rows.expand(2, 1, 16, 1), columns)
    for section in range(6):
        patch, z = divmod(section, 3)
        before = sample.labels[patch, z]
        assert torch.equal(after.labels[patch, z], before.flip(-1) if section in (1, 5) else before)
