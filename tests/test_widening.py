"""A widened network computes what the narrow one does, with the work of a wide one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.widening import widened
from volseg.models.model import load_model_file
from volseg.testing.factories import make_model, rounding_tolerance

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("network", "arguments"),
    [
        ("fusionnet", {"width": 4, "depth": 2}),
        ("fusionnet", {"width": 2, "depth": 1, "in_channels": 3}),
        ("unet", {"width": 4, "depth": 2, "padded": True}),  # which concatenates
    ],
)
def test_a_widened_network_is_the_same_function(tmp_path: Path, network: str, arguments: dict[str, Any]) -> None:
    narrow = make_model(tmp_path / "narrow.safetensors", network, arguments, seed=3)
    wide = load_model_file(widened(tmp_path / "wide.safetensors", narrow, 12))
    taken = load_model_file(narrow)
    tile = torch.randn(2, arguments.get("in_channels", 1), 48, 64)
    with torch.no_grad():
        plain = taken.network(tile)
        one, other = taken.network.double()(tile.double()), wide.network.double()(tile.double())
    # Weights that were divided are float32 again.
    torch.testing.assert_close(other, one, rtol=0, atol=rounding_tolerance(plain, one))
    assert wide.card.arguments["width"] == 12
    assert wide.card.normalization == taken.card.normalization
    assert wide.card.parameters > (12 // arguments["width"]) ** 2 * 0.8 * taken.card.parameters
