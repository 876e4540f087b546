"""Matches the tensors of a state dict to a network: by name, by order, or layer by layer."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING

import torch

from volseg.errors import ModelError
from volseg.models.interop.align import align_layers, layers_of, normed_convolutions, run_order
from volseg.models.interop.state_dict import COUNTER, without_prefixes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor, nn

    from volseg.models.interop.state_dict import StateDict

_ROLES = ("weight", "bias", "running_mean", "running_var")
"""Kinds of tensors with the same shape; tensors of different kinds do not match."""


class MismatchError(ModelError):
    """Tensors that do not fit a network."""


@dataclass(frozen=True, slots=True)
class MatchedTensors:
    """Tensors under the names of a network.

    Attributes:
        tensors: state dict of the network.
        renamed: number of tensors whose names differ from the network's.
        by_layer: whether layers were matched by their shapes and neighbours, since their order differs.
        zero_biases: number of convolutions before a norm whose bias is 0, since the file has none.
    """

    tensors: dict[str, Tensor]
    renamed: int = 0
    by_layer: bool = False
    zero_biases: int = 0


def match_tensors(state: StateDict, network: nn.Module) -> MatchedTensors:
    """Match tensors to the names of a network.

    Tensors are matched by name, without prefixes of wrappers. If names differ, they are matched by their order, which
    is that of the network's definition or of its run; or else layer by layer. A convolution before a norm may lack its
    bias, which is then 0.

    Raises:
        MismatchError: a tensor that does not match.
        ModelError: layers that match in several ways, or a tensor that is not finite.
    """
    expected = network.state_dict()
    counters = {name: expected.pop(name) for name in list(expected) if name.endswith(COUNTER)}
    tensors = without_prefixes(state.tensors, lambda tensors: tensors.keys() <= expected.keys())
    names, by_layer = _match_names(state, tensors, network, expected)
    for name in names.values():
        if not tensors[name].isfinite().all():
            raise ModelError(f"{state.path}: {name} must hold finite floats; use an earlier checkpoint")
    matched = {target: tensors[name].to(expected[target].dtype) for target, name in names.items()}
    zeros = {name: torch.zeros_like(tensor) for name, tensor in expected.items() if name not in matched}
    renamed = len(names) if any(target != name for target, name in names.items()) else 0
    return MatchedTensors(matched | zeros | counters, renamed, by_layer, len(zeros))


def fits(state: StateDict, network: nn.Module) -> bool:
    """Whether a state dict matches a network in one way."""
    expected = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith(COUNTER)}
    try:
        _match_names(state, state.tensors, network, expected)
    except ModelError:
        return False
    return True


def _match_names(
    state: StateDict, tensors: dict[str, Tensor], network: nn.Module, expected: dict[str, Tensor]
) -> tuple[dict[str, str], bool]:
    """Name in the network -> name in the file, and whether they were matched layer by layer."""
    norms = normed_convolutions(network)
    biases = {f"{name}.bias" for name in norms}
    if tensors.keys() <= expected.keys() and expected.keys() - tensors.keys() <= biases:
        if difference := _difference(tensors, {name: expected[name] for name in tensors}):
            raise MismatchError(f"{state.path} {difference}")
        return {name: name for name in tensors}, False

    layers = run_order(network)
    in_run_order = {name: expected[name] for layer in layers for name in expected if name.rpartition(".")[0] == layer}
    orders = [dict(expected), in_run_order]
    orders += [{name: tensor for name, tensor in order.items() if name not in biases} for order in orders]
    fitting = list(dict.fromkeys(tuple(order) for order in orders if not _difference(tensors, order)))
    if state.ordered and fitting:
        if len(fitting) > 1:
            name, *targets = next(names for names in zip(tensors, *fitting, strict=True) if names[1] != names[2])
            raise ModelError(f"{state.path}: {name} could be {' or '.join(targets)}, by its order; rename its tensors")
        return dict(zip(fitting[0], tensors, strict=True)), False

    try:
        pairs = align_layers(layers_of(tensors), layers_of(expected, layers), norms, ordered=state.ordered)
    except ModelError as error:
        raise ModelError(
            f"{state.path} lists its layers in another order than they run: {error}; give a .pt file that lists them "
            "as they run, or rename its tensors to those of the network"
        ) from error
    names = {} if pairs is None else _names_of(pairs, tensors, expected)
    if pairs is not None and expected.keys() - names.keys() <= biases and len(names) == len(tensors):
        return names, True
    difference = _difference(tensors, expected) if state.ordered else _shape_difference(tensors, expected)
    if not difference:
        first, target = next(name for name in tensors if name not in expected), next(iter(expected))
        raise ModelError(
            f"names differ: {state.path} holds {first!r}, the network {target!r}, and a .safetensors file has no "
            "order to match them by; give the .pt file, or rename its tensors"
        )
    raise MismatchError(f"{state.path} {difference}")


def _names_of(
    pairs: Mapping[str, str], tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]
) -> dict[str, str]:
    """Names of tensors from the names of their layers, without those whose shapes or names contradict."""
    names = {}
    for target in expected:
        layer, _, role = target.rpartition(".")
        name = f"{pairs[layer]}.{role}" if pairs.get(layer) else role
        if (
            name in tensors
            and tensors[name].shape == expected[target].shape
            and not _contradict(name, target, expected)
        ):
            names[target] = name
    return names


def _difference(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """The first tensor that does not fit the network in this order; empty if all do."""
    pairs: Iterable[tuple[str | None, str | None]] = zip_longest(tensors, expected)
    if tensors.keys() == expected.keys():
        pairs = ((name, name) for name in expected)
    for name, target in pairs:
        same_shape = name is not None and target is not None and tensors[name].shape == expected[target].shape
        if not same_shape or _contradict(str(name), str(target), expected):
            return f"does not fit: it has {_format(name, tensors)} where the network has {_format(target, expected)}"
    return ""


def _shape_difference(tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str:
    """Tensors whose shapes do not occur as often in the file as in the network; empty if all do."""
    counts, targets = (Counter(tuple(t.shape) for t in part.values()) for part in (tensors, expected))
    surplus = next((name for name, t in tensors.items() if (counts - targets)[tuple(t.shape)]), None)
    missing = next((name for name, t in expected.items() if (targets - counts)[tuple(t.shape)]), None)
    if surplus is None and missing is None:
        return ""
    return f"does not fit: it has {_format(surplus, tensors)} where the network has {_format(missing, expected)}"


def _contradict(name: str, target: str, expected: Mapping[str, Tensor]) -> bool:
    """Whether the names exclude that two tensors of the same shape match."""
    role, target_role = name.rpartition(".")[2], target.rpartition(".")[2]
    return name != target and (name in expected or (role != target_role and {role, target_role} <= set(_ROLES)))


def _format(name: str | None, tensors: Mapping[str, Tensor]) -> str:
    return "nothing" if name is None else f"{name} {tuple(tensors[name].shape)}"
