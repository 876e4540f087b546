"""A shared model is read and optimised once, and released after a run has opened its models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

import volseg
from volseg.errors import ModelError
from volseg.inference.optimize.optimize import optimized
from volseg.models.model import clear_model_cache, load_model_file, load_shared_model
from volseg.testing.factories import make_model, random_network

if TYPE_CHECKING:
    from pathlib import Path


def test_a_shared_model_is_cached_until_its_file_changes_or_the_cache_is_cleared(tmp_path: Path) -> None:
    path = make_model(tmp_path / "m.safetensors", seed=1)
    first = load_shared_model(path)
    assert load_shared_model(path) is first
    assert load_model_file(path) is not first
    network = optimized(first.network, "cpu", "bfloat16")
    assert optimized(first.network, "cpu", "bfloat16") is network
    assert optimized(first.network, "cpu", "float32") is not network
    make_model(path, arguments={"width": 6, "depth": 2}, seed=2)
    second = load_shared_model(path)
    assert second.digest != first.digest
    clear_model_cache()
    assert load_shared_model(path) is not second
    with pytest.raises(ModelError, match="cannot read model file"):
        load_shared_model(tmp_path / "none.safetensors")


def test_a_run_clears_the_cache(raw: Path, small_model: Path, tmp_path: Path) -> None:
    before = load_shared_model(small_model)
    volseg.predict(str(raw), str(tmp_path / "p.zarr"), model=str(small_model), cluster="serial")
    assert load_shared_model(small_model) is not before


@pytest.mark.parametrize(("kind", "arguments"), [("fcn32s", {"width": 4}), ("fusionnet", {"width": 4, "depth": 2})])
def test_loading_skips_random_initialisation_and_sets_all_parameters(
    tmp_path: Path, kind: str, arguments: dict[str, int]
) -> None:
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
