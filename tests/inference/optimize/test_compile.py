"""A compiled network agrees with the eager one, for any batch, and if compiling fails."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from volseg.inference.optimize.compile import CompiledNetwork
from volseg.inference.optimize.optimize import optimize
from volseg.testing.factories import random_network


def network() -> Any:
    return optimize(random_network("fusionnet", {"width": 4, "depth": 2}), "cpu", "float32")


def test_whole_batches_are_compiled_and_others_run_eagerly_in_any_order() -> None:
    compiled: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.extend(len(tiles) for tiles in inputs if tiles.shape[1:] == (1, 32, 32))
        return graph.forward

    eager = network()
    fast = CompiledNetwork(eager, 4, backend=counting)
    with torch.inference_mode():
        for batch in (2, 4, 1, 4):
            tiles = torch.randn(batch, 1, 32, 32)
            torch.testing.assert_close(fast(tiles), eager(tiles))
    assert compiled == [4]


def test_a_network_that_cannot_be_compiled_runs_eagerly_with_one_warning() -> None:
    def failing(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        raise RuntimeError("no C compiler found\nand many more lines")

    eager = network()
    fast, tiles = CompiledNetwork(eager, 1, backend=failing), torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        with pytest.warns(UserWarning, match="torch.compile failed, .*compiler") as caught:
            torch.testing.assert_close(fast(tiles), eager(tiles))
        assert len(caught) == 1
        assert "\n" not in str(caught[0].message)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fast(tiles)


def test_out_of_memory_is_not_a_compile_error() -> None:
    def full(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def out(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        return out

    with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError):
        CompiledNetwork(network(), 1, backend=full)(torch.randn(1, 1, 32, 32))
