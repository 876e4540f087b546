"""Orientations of a tile and their inverses."""

from __future__ import annotations

import pytest
import torch

from volseg.inference import ORIENTATIONS


@pytest.mark.parametrize(("name", "count"), [("one", 1), ("flips", 4), ("all", 8)])
def test_orientations_differ_and_are_inverted(name, count: int) -> None:
    tile = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    transformed = [orientation.apply(tile) for orientation in ORIENTATIONS[name]]
    assert len({str(section.tolist()) for section in transformed}) == count
    for orientation, section in zip(ORIENTATIONS[name], transformed, strict=True):
        torch.testing.assert_close(orientation.invert(section), tile)
    torch.testing.assert_close(transformed[0], tile)


def test_all_are_the_eight_symmetries_of_a_square() -> None:
    square = torch.arange(9.0).reshape(3, 3)
    expected = {str(torch.rot90(side, k).tolist()) for side in (square, square.flip(1)) for k in range(4)}
    assert {str(orientation.apply(square).tolist()) for orientation in ORIENTATIONS["all"]} == expected
