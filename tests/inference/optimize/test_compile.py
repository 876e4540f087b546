"""A compiled network gives what the network gives, for any batch, and where compiling fails too."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from volseg.inference.optimize.compile import Compiled
from volseg.inference.optimize.optimize import prepared
from volseg.testing.factories import random_network


def network() -> Any:
    return prepared(random_network("fusionnet", {"width": 4, "depth": 2}), "cpu", "float32")


def test_whole_batches_are_compiled_and_others_take_the_network_itself_whichever_comes_first() -> None:
    compiled: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        compiled.extend(len(each) for each in inputs if each.shape[1:] == (1, 32, 32))
        return graph.forward

    plain = network()
    fast = Compiled(plain, 4, backend=counting)
    with torch.inference_mode():
        for batch in (2, 4, 1, 4):
            tiles = torch.randn(batch, 1, 32, 32)
            torch.testing.assert_close(fast(tiles), plain(tiles))
    assert compiled == [4]


def test_where_compiling_fails_the_network_runs_as_it_is_with_one_warning() -> None:
    def failing(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        raise RuntimeError("no C compiler found\nand many more lines")

    plain = network()
    fast, tiles = Compiled(plain, 1, backend=failing), torch.randn(1, 1, 32, 32)
    with torch.inference_mode():
        with pytest.warns(
            UserWarning, match="torch.compile failed here, so networks run as they are.*compiler"
        ) as told:
            torch.testing.assert_close(fast(tiles), plain(tiles))
        assert len(told) == 1
        assert "\n" not in str(told[0].message)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fast(tiles)


def test_want_of_memory_is_no_failure_to_compile() -> None:
    def full(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        def out(*_: Any) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory.")

        return out

    with torch.inference_mode(), pytest.raises(torch.OutOfMemoryError):
        Compiled(network(), 1, backend=full)(torch.randn(1, 1, 32, 32))
