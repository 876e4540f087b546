"""Batch norms folded into the convolutions around them, so that no pass over a map is left of them.

behind a convolution: into it, scale and shift
behind a convolution and its ReLU: a * relu(c) + b = relu(a * c) + b where a > 0, so the scale goes into the convolution
before; the shift b travels with the map, through sums and poolings, until a convolution behind takes it into its bias

    x -> C -> relu -> a * . + b -> C'     becomes     x -> aC -> relu -> C' with the bias c' + C' b

A convolution that pads with zeros pads what was shifted with b instead: what a tile's edge is made of changes, as it
would with another padding, and nothing beyond the network's reach of the edge does.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS, NORMS, POOLINGS, Crop, CropConcat, Shift
from volseg.models.receptive_field import SUMS, dimensions, traced

if TYPE_CHECKING:
    from torch import Tensor

_PASS = (nn.Dropout, nn.Identity, Crop)


def without_norms(network: nn.Module) -> fx.GraphModule:
    """A copy of a network, in eval mode and without gradients, whose batch norms are folded away where they can be.

    One stays where its scale is not positive behind a ReLU, or where others use what stands before it.

    Args:
        network: float32, on any device.
    """
    folding = _Folding(traced(copy.deepcopy(network).eval().requires_grad_(requires_grad=False)))
    for node in list(folding.graph.graph.nodes):
        folding.visit(node)
    folding.graph.graph.lint()
    folding.graph.delete_all_unused_submodules()
    folding.graph.recompile()
    return folding.graph


class _Folding:
    """A graph on its way; `shifts` are the constants that each channel of a node's output still lacks."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.shifts: dict[fx.Node, Tensor] = {}
        self._dimensions = dimensions(graph)
        self._channels: dict[fx.Node, int] = {}

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.graph.get_submodule(str(node.target)) if node.op == "call_module" else None

    def visit(self, node: fx.Node) -> None:
        module = self.module(node)
        if isinstance(module, NORMS) and self._fold(node, module):
            return
        lacking = [source for source in node.all_input_nodes if source in self.shifts]
        if not lacking:
            return
        if isinstance(module, CONVOLUTIONS):
            self._into_bias(node, module, self.shifts[lacking[0]])
        elif node.target in SUMS and len(node.all_input_nodes) == 2:
            self.shifts[node] = torch.stack([self.shifts[source] for source in lacking]).sum(0)
        elif isinstance(module, CropConcat) and len(lacking) == len(node.all_input_nodes):
            self.shifts[node] = torch.cat([self.shifts[source] for source in node.all_input_nodes])
        elif isinstance(module, (*_PASS, *POOLINGS)) and not getattr(module, "return_indices", False):
            self.shifts[node] = self.shifts[lacking[0]]
        else:
            for source in lacking:
                self._put_in(source, node)

    def _fold(self, node: fx.Node, norm: Any) -> bool:
        """Fold a norm into what stands before it; False where it must stay."""
        (before,) = node.all_input_nodes
        relu = before if isinstance(self.module(before), nn.ReLU) else None
        made_by = relu.all_input_nodes[0] if relu else before
        convolution = self.module(made_by)
        alone = len(before.users) == 1 and len(made_by.users) == 1
        if not isinstance(convolution, CONVOLUTIONS + DECONVOLUTIONS) or not alone or self._is_shared(made_by):
            return False
        if relu is None:
            fused: nn.Module = fuse_conv_bn_eval(convolution, norm, transpose=isinstance(convolution, DECONVOLUTIONS))
        else:
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            if not bool((scale > 0).all()):
                return False
            fused = _scaled(convolution, scale)
            self.shifts[before] = norm.bias - norm.running_mean * scale
        self.graph.set_submodule(str(made_by.target), fused)
        node.replace_all_uses_with(before)
        self.graph.graph.erase_node(node)
        return True

    def _is_shared(self, node: fx.Node) -> bool:
        """Whether a layer is called more than once, so that changing it would change the other calls."""
        return [other.target for other in self.graph.graph.nodes].count(node.target) > 1

    def _into_bias(self, node: fx.Node, convolution: Any, shift: Tensor) -> None:
        if self._is_shared(node) or convolution.groups != 1:
            self._put_in(node.all_input_nodes[0], node)
            return
        taken = convolution.weight.sum(dim=tuple(range(2, convolution.weight.ndim))) @ shift
        bias = taken if convolution.bias is None else convolution.bias + taken
        convolution.bias = nn.Parameter(bias, requires_grad=False)

    def _put_in(self, source: fx.Node, user: fx.Node) -> None:
        """Add a node's shift before one of its users."""
        name = f"shift_{sum(isinstance(module, Shift) for module in self.graph.modules())}"
        self.graph.add_submodule(name, Shift(self.shifts[source], self._dimensions))
        with self.graph.graph.inserting_before(user):
            shifted = self.graph.graph.call_module(name, (source,))
        user.replace_input_with(source, shifted)


def _scaled(convolution: Any, scale: Tensor) -> nn.Module:
    """A convolution whose output channels are scaled."""
    made = copy.deepcopy(convolution)
    out = 1 if isinstance(convolution, DECONVOLUTIONS) else 0
    sides = [-1 if axis == out else 1 for axis in range(made.weight.ndim)]
    made.weight = nn.Parameter(made.weight * scale.view(sides), requires_grad=False)
    if made.bias is not None:
        made.bias = nn.Parameter(made.bias * scale, requires_grad=False)
    result: nn.Module = made
    return result
