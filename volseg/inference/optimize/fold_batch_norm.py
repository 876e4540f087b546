"""Folds batch norms into the convolutions around them, which removes their passes over feature maps.

A norm after a convolution: its scale and shift are folded into that convolution.
A norm after a convolution and its ReLU: a * relu(c) + b = relu(a * c) + b if a > 0, so the scale is folded into that
convolution. The shift b is propagated through sums and poolings, until a later convolution adds it to its bias:

    x -> C -> relu -> a * . + b -> C'     becomes     x -> aC -> relu -> C' with the bias c' + C' b

A convolution that pads with zeros then pads the shifted map with b: the edge of a tile changes, as it would with
another padding, but nothing further from the edge than the network's reach.
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

_SHIFT_EQUIVARIANT = (nn.Dropout, nn.Identity, Crop, *POOLINGS)
"""Layers that pass a constant added to their input on to their output."""


def fold_batch_norm(network: nn.Module) -> fx.GraphModule:
    """A traced copy of a network, in eval mode and without gradients, with its batch norms folded.

    A norm stays if its scale after a ReLU is not positive, or if its input has other users.

    Args:
        network: float32, on any device.
    """
    folder = _BatchNormFolder(traced(copy.deepcopy(network).eval().requires_grad_(requires_grad=False)))
    for node in list(folder.graph.graph.nodes):
        folder.visit(node)
    folder.graph.graph.lint()
    folder.graph.delete_all_unused_submodules()
    folder.graph.recompile()
    return folder.graph


class _BatchNormFolder:
    """Folds norms node by node; `shifts` maps a node to the constants still to be added to its output's channels."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.shifts: dict[fx.Node, Tensor] = {}
        self._dimensions = dimensions(graph)

    def module(self, node: fx.Node) -> nn.Module | None:
        return self.graph.get_submodule(str(node.target)) if node.op == "call_module" else None

    def visit(self, node: fx.Node) -> None:
        module = self.module(node)
        if type(module) in NORMS and self._fold(node, module):
            return
        sources = [source for source in node.all_input_nodes if source in self.shifts]
        if not sources:
            return
        if type(module) in CONVOLUTIONS:
            self._fold_into_bias(node, module, self.shifts[sources[0]])
        elif node.target in SUMS and len(node.all_input_nodes) == 2:
            self.shifts[node] = torch.stack([self.shifts[source] for source in sources]).sum(0)
        elif isinstance(module, CropConcat) and len(sources) == len(node.all_input_nodes):
            self.shifts[node] = torch.cat([self.shifts[source] for source in node.all_input_nodes])
        elif type(module) in _SHIFT_EQUIVARIANT and not getattr(module, "return_indices", False):
            self.shifts[node] = self.shifts[sources[0]]
        else:
            for source in sources:
                self._insert_shift(source, node)

    def _fold(self, node: fx.Node, norm: Any) -> bool:
        """Fold a norm into the convolution before it; False if it must stay."""
        (before,) = node.all_input_nodes
        relu = before if type(self.module(before)) is nn.ReLU else None
        producer = relu.all_input_nodes[0] if relu else before
        convolution: Any = self.module(producer)
        sole_user = len(before.users) == 1 and len(producer.users) == 1
        if type(convolution) not in CONVOLUTIONS + DECONVOLUTIONS or not sole_user or self._is_shared(producer):
            return False
        if relu is None:
            fused = fuse_conv_bn_eval(convolution, norm, transpose=isinstance(convolution, DECONVOLUTIONS))
        else:
            scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
            if not bool((scale > 0).all()):
                return False
            fused = _scale_output(convolution, scale)
            self.shifts[before] = norm.bias - norm.running_mean * scale
        self.graph.set_submodule(str(producer.target), fused)
        node.replace_all_uses_with(before)
        self.graph.graph.erase_node(node)
        return True

    def _is_shared(self, node: fx.Node) -> bool:
        """Whether a layer is called more than once, so that changing it would change the other calls."""
        return [other.target for other in self.graph.graph.nodes].count(node.target) > 1

    def _fold_into_bias(self, node: fx.Node, convolution: Any, shift: Tensor) -> None:
        if self._is_shared(node) or convolution.groups != 1:
            self._insert_shift(node.all_input_nodes[0], node)
            return
        change = convolution.weight.sum(dim=tuple(range(2, convolution.weight.ndim))) @ shift
        bias = change if convolution.bias is None else convolution.bias + change
        convolution.bias = nn.Parameter(bias, requires_grad=False)

    def _insert_shift(self, source: fx.Node, user: fx.Node) -> None:
        """Add a node's shift before one of its users."""
        name = f"shift_{sum(isinstance(module, Shift) for module in self.graph.modules())}"
        self.graph.add_submodule(name, Shift(self.shifts[source], self._dimensions))
        with self.graph.graph.inserting_before(user):
            shifted = self.graph.graph.call_module(name, (source,))
        user.replace_input_with(source, shifted)


def _scale_output(convolution: Any, scale: Tensor) -> Any:
    """A copy of a convolution with its output channels scaled."""
    result: Any = copy.deepcopy(convolution)
    channel_axis = 1 if isinstance(convolution, DECONVOLUTIONS) else 0
    shape = [-1 if axis == channel_axis else 1 for axis in range(result.weight.ndim)]
    result.weight = nn.Parameter(result.weight * scale.view(shape), requires_grad=False)
    if result.bias is not None:
        result.bias = nn.Parameter(result.bias * scale, requires_grad=False)
    return result
