"""A model that several measure is read once, made ready once, and let go when the run is open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import volseg
from volseg.errors import ModelError
from volseg.inference.optimize.optimize import optimized
from volseg.models.model import clear_model_cache, load_model_file, shared_model
from volseg.testing.factories import make_model, random_network

if TYPE_CHECKING:
    from pathlib import Path


def test_a_shared_model_is_read_once_until_its_file_changes_or_it_is_let_go(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors", seed=1)
    first = shared_model(path)
    assert shared_model(path) is first
    assert load_model_file(path) is not first
    made = optimized(first.network, "cpu", "bfloat16")
    assert optimized(first.network, "cpu", "bfloat16") is made
    assert optimized(first.network, "cpu", "float32") is not made
    make_model(path, arguments={"width": 6, "depth": 2}, seed=2)
    second = shared_model(path)
    assert second.digest != first.digest
    clear_model_cache()
    assert shared_model(path) is not second
    with pytest.raises(ModelError, match="cannot read model file"):
        shared_model(tmp_path / "none.safetensors")


def test_a_run_that_is_open_lets_go_of_its_model(raw: Path, small_model: Path, tmp_path: Path) -> None:
    """What it needs of it, it holds itself."""
    before = shared_model(small_model)
    volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), cluster="serial")
    assert shared_model(small_model) is not before


@pytest.mark.parametrize(("kind", "arguments"), [("fcn32s", {"width": 4}), ("fusionnet", {"width": 4, "depth": 2})])
def test_loading_draws_no_numbers_and_leaves_none_undrawn(tmp_path: Path, kind: str, arguments: dict[str, int]) -> None:
    path = make_model(tmp_path / "m.safetensors", kind, arguments, seed=4)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    loaded = load_model_file(path).network
    assert torch.equal(torch.get_rng_state(), before)
    expected = random_network(kind, arguments, 4).state_dict()
    assert loaded.state_dict().keys() == expected.keys()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(tensor, expected[name])
    assert all(parameter.requires_grad for parameter in loaded.parameters()) == all(
        parameter.requires_grad for parameter in random_network(kind, arguments, 4).parameters()
    )
