"""Packs convolutions for oneDNN on a CPU: weights in its blocked layout, the ReLU fused into the convolution.

torch.compile does the same, but needs a compiler, and seconds in every worker.
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
    """A convolution and its optional ReLU in one operator."""

    def __init__(self, convolution: Any, *, relu: bool) -> None:
        super().__init__()
        self._geometry = (
            list(convolution.padding),
            list(convolution.stride),
            list(convolution.dilation),
            convolution.groups,
        )
        self._weight = torch.ops.mkldnn._reorder_convolution_weight(convolution.weight.detach(), *self._geometry)
        bias = getattr(convolution, "exact_bias", convolution.bias)  # oneDNN adds it in float32, before it rounds
        self._bias = None if bias is None else bias.detach()
        self._activation = "relu" if relu else "none"

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, y, x)."""
        out: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, self._weight, self._bias, *self._geometry, self._activation, [], ""
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


def pack_convolutions(
    graph: fx.GraphModule, cache: MutableMapping[str, PackedConvolution] | None = None
) -> fx.GraphModule:
    """Copy a graph with packed convolutions, and with sums in place where nothing else uses their input.

    Args:
        graph: whose layers are on a CPU, in the precision in which they run.
        cache: packed convolutions of the same network, by layer; filled here.
    """
    cache = {} if cache is None else cache
    calls = Counter(node.target for node in graph.graph.nodes)
    result = fx.GraphModule(graph, copy.deepcopy(graph.graph))
    for node in list(result.graph.nodes):
        module = _module(result, node)
        if type(module) is nn.Conv2d and isinstance(module.padding, tuple) and calls[node.target] == 1:
            _pack(result, node, module, cache)
        elif node.target in SUMS:
            _sum_in_place(result, node)
    result.delete_all_unused_submodules()
    result.graph.lint()
    result.recompile()
    return result


def _module(graph: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return graph.get_submodule(str(node.target)) if node.op == "call_module" else None


def _pack(
    graph: fx.GraphModule, node: fx.Node, convolution: nn.Conv2d, cache: MutableMapping[str, PackedConvolution]
) -> None:
    user = next(iter(node.users))
    relu = len(node.users) == 1 and type(_module(graph, user)) is nn.ReLU
    name = str(node.target)
    if name not in cache:
        cache[name] = PackedConvolution(convolution, relu=relu)
    graph.set_submodule(name, cache[name])
    if relu:
        user.replace_all_uses_with(node)
        graph.graph.erase_node(user)


def _sum_in_place(graph: fx.GraphModule, node: fx.Node) -> None:
    """Let a sum overwrite one of its inputs, if that is the output of a convolution and has no other use."""
    one, other = node.args
    for target, addend in ((other, one), (one, other)):
        if isinstance(target, fx.Node) and len(target.users) == 1 and _allocates(graph, target):
            node.target, node.args = operator.iadd, (target, addend)
            return


def _allocates(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node's output has memory of its own."""
    return isinstance(_module(graph, node), PackedConvolution | nn.ConvTranspose2d)
