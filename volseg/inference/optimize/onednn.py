"""Convolutions on a CPU as oneDNN likes them: weights in its own layout, the ReLU computed with the convolution.

It is what torch.compile makes of them too, without a compiler, and without seconds of compiling in every worker.
"""

from __future__ import annotations

import copy
import operator
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx, nn

from volseg.models.receptive_field import SUMS

if TYPE_CHECKING:
    from collections.abc import MutableMapping


class PackedConvolution(nn.Module):
    """A convolution, and the ReLU behind it, in one pass over its output."""

    def __init__(self, convolution: Any, *, relu: bool) -> None:
        super().__init__()
        self._how = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight.detach(), *self._how)
        bias = getattr(convolution, "exact_bias", convolution.bias)  # oneDNN adds it in float32, before it rounds
        self._bias = None if bias is None else bias.detach()
        self._then = "relu" if relu else "none"

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, y, x)."""
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *self._how, self._then, [], ""
        )
        return out


@cache
def can_pack(dtype: torch.dtype) -> bool:
    """Whether this torch and this processor have what packing takes; tried once for each precision.

    The operators are those that torch's own compiler calls; another release may not have them. What oneDNN can do in
    fewer bits depends on the processor and on what it is limited to (`ONEDNN_MAX_CPU_ISA`), which torch does not ask.
    """
    names = ("_reorder_convolution_weight", "_convolution_pointwise")
    if not torch.backends.mkldnn.is_available() or not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return dtype in (torch.float32, torch.bfloat16) and _packs(dtype)


def _packs(dtype: torch.dtype) -> bool:
    """Whether a tiny packed convolution runs, and adds its bias in float32 before it rounds."""
    # In bfloat16 the sum 33.0625 alone becomes 33, the bias 67: whoever rounds either first gets 100, not 100.5.
    taps, bias = (32.0, 1.0, 0.0625, 0.0), 67.21875
    # Without the random weights of a new layer: what is drawn later must not depend on this.
    convolution = nn.utils.skip_init(nn.Conv2d, 4, 4, 3, padding=1, device="cpu")
    with torch.inference_mode(), torch.device("cpu"):
        convolution.weight.zero_()[:, :, 1, 1] = torch.tensor(taps)
        convolution.to(dtype)
        convolution.exact_bias = torch.full((4,), bias)
        ones = torch.ones(1, 4, 8, 8, dtype=dtype)
        try:
            made = PackedConvolution(convolution, relu=False)(ones)
        except RuntimeError:
            return False
    return torch.equal(made, torch.full_like(made, sum(taps) + bias))


def packed(graph: fx.GraphModule, known: MutableMapping[str, PackedConvolution] | None = None) -> fx.GraphModule:
    """The same graph with packed convolutions, and sums that overwrite what nobody else needs.

    Args:
        graph: of a network whose layers lie on a CPU, in the precision that they run in.
        known: what was packed of the same network already, by layer; grows.
    """
    known = {} if known is None else known
    calls = Counter(node.target for node in graph.graph.nodes)
    made = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for node in list(made.graph.nodes):
        module = _module(made, node)
        if isinstance(module, nn.Conv2d) and isinstance(module.padding, tuple) and calls[node.target] == 1:
            _pack(made, node, module, known)
        elif node.target in SUMS:
            _sum_in_place(made, node)
    made.delete_all_unused_submodules()
    made.graph.lint()
    made.recompile()
    return made


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _pack(
    graph: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d, known: MutableMapping[str, PackedConvolution]
) -> None:
    behind = next(iter(node.users))
    relu = len(node.users) == 1 and isinstance(_module(graph, behind), nn.ReLU)
    name = str(node.target)
    if name not in known:
        known[name] = PackedConvolution(convolution, relu=relu)
    graph.set_submodule(name, known[name])
    if relu:
        behind.replace_all_uses_with(node)
        graph.graph.erase_node(behind)


def _sum_in_place(graph: fx.GraphModule, node: fx.Node) -> None:
    """Let a sum overwrite one of its inputs, where that is a convolution's output that nothing else uses."""
    one, other = node.args
    for target, added in ((other, one), (one, other)):
        if isinstance(target, fx.Node) and len(target.users) == 1 and _is_fresh(graph, target):
            node.target, node.args = operator.iadd, (target, added)
            return


def _is_fresh(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node's output is memory of its own."""
    return isinstance(_module(graph, node), PackedConvolution | nn.ConvTranspose2d)
