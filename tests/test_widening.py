"""A widened network has the function of the narrow one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from benchmarks.widening import widen_model
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
def test_widening_preserves_the_function(tmp_path: Path, network: str, arguments: dict[str, Any]) -> None:
    narrow = make_model(tmp_path / "narrow.safetensors", network, arguments, seed=3)
    wide = load_model_file(widen_model(tmp_path / "wide.safetensors", narrow, 12))
    model = load_model_file(narrow)
    tile = torch.randn(2, arguments.get("in_channels", 1), 48, 64)
    with torch.no_grad():
        plain = model.network(tile)
        expected, output = model.network.double()(tile.double()), wide.network.double()(tile.double())
    # Divided weights are rounded to float32.
    torch.testing.assert_close(output, expected, rtol=0, atol=rounding_tolerance(plain, expected))
    assert wide.card.arguments["width"] == 12
    assert wide.card.normalization == model.card.normalization
    assert wide.card.parameters > (12 // arguments["width"]) ** 2 * 0.8 * model.card.parameters
