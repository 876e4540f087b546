"""Turning a tile and turning it back."""

from __future__ import annotations

import pytest
import torch

from volseg.inference import ORIENTATIONS


@pytest.mark.parametrize(("name", "count"), [("one", 1), ("flips", 4), ("all", 8)])
def test_orientations_differ_and_are_undone(name, count: int) -> None:
    tile = torch.arange(2 * 3 * 4.0).reshape(2, 3, 4)
    turned = [orientation.turn(tile) for orientation in ORIENTATIONS[name]]
    assert len({str(each.tolist()) for each in turned}) == count
    for orientation, each in zip(ORIENTATIONS[name], turned, strict=True):
        torch.testing.assert_close(orientation.back(each), tile)
    torch.testing.assert_close(turned[0], tile)


def test_all_are_the_eight_of_a_square() -> None:
    square = torch.arange(9.0).reshape(3, 3)
    by_hand = {str(torch.rot90(side, k).tolist()) for side in (square, square.flip(1)) for k in range(4)}
    assert {str(orientation.turn(square).tolist()) for orientation in ORIENTATIONS["all"]} == by_hand
