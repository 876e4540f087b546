"""Reads every activation of a forward pass: the largest, and the first layer whose output is NaN or infinite.

It takes a plain graph, with a node for each layer: a ReLU that oneDNN fuses makes 0 of NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class ActivationRange:
    """What the activations of one forward pass are.

    Attributes:
        largest: magnitude among those of layers that are finite.
        layer: that has it.
        not_finite: first layer with NaN or infinity; empty if there is none.
    """

    largest: float
    layer: str
    not_finite: str = ""


def read_activations(graph: fx.GraphModule, tiles: Tensor) -> tuple[ActivationRange, Tensor]:
    """Run a graph layer by layer; one value of each layer leaves the device, at the end.

    Args:
        graph: traced, on any device.
        tiles: (N, C, [z,] y, x), on the same.

    Returns:
        The range, and the graph's output.
    """
    reader = _Reader(graph)
    output: Tensor = reader.run(tiles)
    layers, extremes = zip(*reader.extremes, strict=True)
    magnitudes: list[float] = torch.stack(extremes).tolist()
    finite = [magnitude < float("inf") for magnitude in magnitudes]  # false for NaN
    largest, layer = max(
        (pair for pair, holds in zip(zip(magnitudes, layers, strict=True), finite, strict=True) if holds),
        default=(0.0, ""),
    )
    return ActivationRange(largest, layer, "" if all(finite) else layers[finite.index(False)]), output


_SELECTING = (nn.ReLU, nn.MaxPool2d, nn.MaxPool3d, nn.Dropout, nn.Identity)
"""Layers whose values are among those that they get, or 0: what is to be found is in the layer before."""


class _Reader(fx.Interpreter):
    """Runs a graph; `extremes` receives each layer's name and largest magnitude, NaN if it has one."""

    def __init__(self, graph: fx.GraphModule) -> None:
        super().__init__(graph)
        self.extremes: list[tuple[str, Tensor]] = []

    def run_node(self, n: fx.Node) -> Any:
        output = super().run_node(n)
        if n.op == "call_module" and isinstance(self.fetch_attr(str(n.target)), _SELECTING):
            return output
        name = str(n.target) if n.op == "call_module" else "the input" if n.op == "placeholder" else n.name
        for tensor in _floats(output) if n.op != "output" else ():
            # In float32: the magnitude of a type's lowest value need not be one of its values.
            self.extremes.append((name, torch.stack(torch.aminmax(tensor)).float().abs().amax()))
        return output


def _floats(output: Any) -> Iterator[Tensor]:
    """The tensors of a layer's output without switches, which are integers."""
    for each in output if isinstance(output, tuple | list) else (output,):
        if isinstance(each, Tensor) and each.is_floating_point() and each.numel():
            yield each
