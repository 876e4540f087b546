"""Pairs the layers of a state dict with those of a network if their order differs.

A shape that occurs once in both is an anchor. From each anchor, neighbours pair as long as their shapes agree, so that
lists whose parts were moved fit together. What neither anchors nor neighbours settle is ambiguous.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from volseg.errors import ModelError
from volseg.models.networks.layers import CONVOLUTIONS, DECONVOLUTIONS, NORMS
from volseg.models.receptive_field import traced

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor, nn

_KERNELS = CONVOLUTIONS + DECONVOLUTIONS

Pairs = dict[int, int]
"""Position in the network -> position in the file."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer with weights.

    Attributes:
        name: of the module.
        shapes: kind of tensor (weight, bias, running_mean ..) -> shape.
    """

    name: str
    shapes: dict[str, tuple[int, ...]]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return self.shapes.get("weight", ())

    @property
    def is_convolution(self) -> bool:
        """Whether the weight is a kernel."""
        return len(self.shape) > 2


def layers_of(tensors: Mapping[str, Tensor], order: Iterable[str] = ()) -> list[Layer]:
    """Group tensors into layers, in their order or in that of the names given."""
    layers: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in order}
    for name, tensor in tensors.items():
        layer, _, role = name.rpartition(".")
        layers.setdefault(layer, {})[role] = tuple(tensor.shape)
    return [Layer(name, shapes) for name, shapes in layers.items()]


def run_order(network: nn.Module) -> list[str]:
    """Names of the layers with weights, in the order in which the network runs them."""
    modules = dict(network.named_modules())
    names = [str(node.target) for node in traced(network).graph.nodes if node.op == "call_module"]
    return [name for name in dict.fromkeys(names) if modules[name].state_dict()]


def normed_convolutions(network: nn.Module) -> dict[str, str]:
    """Convolutions that a norm follows, before or after their activation, and that norm."""
    modules = dict(network.named_modules())
    pairs = pairwise(run_order(network))
    return {a: b for a, b in pairs if isinstance(modules[a], _KERNELS) and isinstance(modules[b], NORMS)}


def align_layers(file: Sequence[Layer], network: Sequence[Layer], norms: Mapping[str, str], *,
                 ordered: bool) -> dict[str, str] | None:  # fmt: skip
    """Pair the layers of a network with those of a file: name in the network -> name in the file.

    Args:
        file: in the order of their definition, or sorted by name.
        network: in the order in which they run.
        norms: of the network, by their convolutions.
        ordered: whether the order of the file means something; else neighbours are those whose names differ in a
            number only.

    Returns:
        The pairs; None if the file has other shapes than the network.

    Raises:
        ModelError: layers that fit in several ways.
    """
    if not ordered:
        file = sorted(file, key=lambda layer: _natural(layer.name))
    file_convolutions, convolutions = ([each for each in part if each.is_convolution] for part in (file, network))
    pairs = _align(file_convolutions, convolutions, ordered=ordered)
    if pairs is None:
        return None
    named = {convolutions[a].name: file_convolutions[b].name for a, b in pairs.items()}
    file_norms = _norms_by_convolution(
        [layer for layer in file if not layer.is_convolution],
        [layer for layer in file_convolutions if layer.name in {named[name] for name in norms}],
        {named[name]: next(layer.shape for layer in network if layer.name == norm) for name, norm in norms.items()},
        ordered=ordered,
    )
    return None if file_norms is None else named | {norm: file_norms[named[name]] for name, norm in norms.items()}


def _align(file: Sequence[Layer], network: Sequence[Layer], *, ordered: bool) -> Pairs | None:
    """Pair convolutions."""
    shapes, targets = [layer.shape for layer in file], [layer.shape for layer in network]
    if Counter(shapes) != Counter(targets):
        return None
    links = [ordered or _pattern(a.name) == _pattern(b.name) for a, b in pairwise(file)]
    pairs: Pairs = {}
    while len(pairs) < len(targets):
        free = [at for at in range(len(targets)) if at not in pairs]
        free_in_file = [at for at in range(len(shapes)) if at not in set(pairs.values())]
        claims = _claims(free, free_in_file, shapes, targets, links) or _equal_runs(
            free, free_in_file, shapes, targets, links
        )
        takers = Counter(claims.values())
        new = {at: b for at, b in claims.items() if takers[b] == 1}
        if not new:
            same = [b for b in free_in_file if shapes[b] == shapes[free_in_file[0]]]
            raise ModelError(
                f"{', '.join(file[b].name for b in same)} have the same shape, and each could be "
                f"{' or '.join(network[at].name for at in free if targets[at] == shapes[same[0]])}"
            )
        pairs |= new
    return pairs


def _claims(
    free: list[int], free_in_file: list[int], shapes: Sequence[Any], targets: Sequence[Any], links: list[bool]
) -> Pairs:
    """Pairs of layers whose shape occurs once, and of their neighbours; without those claimed for two layers."""
    once, once_in_file = (_unique(part, at) for part, at in ((targets, free), (shapes, free_in_file)))
    claims: dict[int, set[int]] = defaultdict(set)
    for shape in once.keys() & once_in_file.keys():
        claims[once[shape]].add(once_in_file[shape])
        for step in (1, -1):
            at, b = once[shape] + step, once_in_file[shape] + step
            while at in free and b in free_in_file and targets[at] == shapes[b] and links[min(b, b - step)]:
                claims[at].add(b)
                at, b = at + step, b + step
    return {at: next(iter(several)) for at, several in claims.items() if len(several) == 1}


def _equal_runs(
    free: list[int], free_in_file: list[int], shapes: Sequence[Any], targets: Sequence[Any], links: list[bool]
) -> Pairs:
    """Pairs of the layers in runs of neighbours whose shapes occur as such once in file and network."""
    runs = _runs(free, [True] * len(targets))
    runs_in_file = _runs(free_in_file, links)
    once = _unique([tuple(targets[at] for at in run) for run in runs], range(len(runs)))
    once_in_file = _unique([tuple(shapes[b] for b in run) for run in runs_in_file], range(len(runs_in_file)))
    return {
        at: b
        for key in once.keys() & once_in_file.keys()
        for at, b in zip(runs[once[key]], runs_in_file[once_in_file[key]], strict=True)
    }


def _unique(values: Sequence[Any], positions: Sequence[int]) -> dict[Any, int]:
    """Values that occur once at these positions, and where."""
    counts = Counter(values[at] for at in positions)
    return {values[at]: at for at in positions if counts[values[at]] == 1}


def _runs(positions: Sequence[int], links: Sequence[bool]) -> list[list[int]]:
    """Split increasing positions into runs of linked neighbours."""
    runs: list[list[int]] = []
    for at in positions:
        if runs and runs[-1][-1] == at - 1 and links[at - 1]:
            runs[-1].append(at)
        else:
            runs.append([at])
    return runs


def _norms_by_convolution(
    norms: Sequence[Layer], convolutions: Sequence[Layer], widths: Mapping[str, tuple[int, ...]], *, ordered: bool
) -> dict[str, str] | None:
    """Pair the norms of a file with its convolutions in order: within a module, or else over the file."""

    def grouped(layers: Sequence[Layer], *, by_module: bool) -> dict[Any, list[str]]:
        groups: dict[Any, list[str]] = defaultdict(list)
        for layer in layers:
            width = widths.get(layer.name, layer.shape)
            groups[layer.name.rpartition(".")[0] if by_module else "", width].append(layer.name)
        return groups

    for by_module in (True, False) if ordered else (True,):
        first, second = grouped(convolutions, by_module=by_module), grouped(norms, by_module=by_module)
        if {key: len(names) for key, names in first.items()} == {key: len(names) for key, names in second.items()}:
            return {a: b for key, names in first.items() for a, b in zip(names, second[key], strict=True)}
    return None


def _pattern(name: str) -> str:
    """A name with its numbers left out."""
    return re.sub(r"\d+", "#", name)


def _natural(name: str) -> list[tuple[int, str]]:
    """A key that sorts numbers in names by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name)]
