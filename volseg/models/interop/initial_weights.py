"""Initial weights of a training: those of a model, of a coarser FCN, or of a VGG16 classifier."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from volseg.errors import ConfigError, ModelError
from volseg.models.card import CARD_KEY
from volseg.models.interop.align import normed_convolutions, run_order
from volseg.models.interop.state_dict import read_state_dict, without_prefixes
from volseg.models.model import load_model_file
from volseg.models.networks.deconvnet import DeconvNet
from volseg.models.networks.fcn import FCN
from volseg.models.networks.vgg import CONVOLUTIONS_PER_STAGE, classifier_width
from volseg.models.packaged import packaged_models, resolve_model

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_FEATURES = sum(CONVOLUTIONS_PER_STAGE)
"""Convolutions of VGG16 before its fully connected layers."""
_FULLY_CONNECTED = ("classifier.0", "classifier.3")
"""torchvision's names of the fully connected layers that become convolutions."""
_SCORES = ("head.", "scores.")
"""Layers of an FCN that begin with zeros."""
_ROLES = ("weight", "bias", "running_mean", "running_var")
_NORM_EPSILON = 1e-5
"""Of the norms in torchvision's vgg16_bn, as of all norms here."""


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Where the initial weights of a network come from.

    Attributes:
        file: they were read from.
        taken: layer of the network -> layer of the file.
        left_out: layers of the file that are not used.
        fresh: layers of the network that are not in the file: zeros for the scores of an FCN, else random.
    """

    file: str
    taken: dict[str, str]
    left_out: tuple[str, ...]
    fresh: tuple[str, ...]

    def lines(self) -> list[str]:
        """Lines to show to the user."""
        pairs = [name if name == source else f"{source} as {name}" for name, source in self.taken.items()]
        return [
            f"start from {self.file}: {len(pairs)} layers taken: {', '.join(pairs)}",
            f"start from {self.file}: not taken: {', '.join(self.left_out) or 'none'}; "
            f"not in the file: {', '.join(self.fresh) or 'none'}",
        ]


def load_initial_weights(network: nn.Module, start: str, kind: str, arguments: dict[str, Any]) -> InitialWeights:
    """Load weights into a network before its training.

    A model file of the same network gives all layers; one of a coarser FCN all but the finer scores, which are set to
    0. A state dict in torchvision's layout of VGG16 gives the convolutions and the first two fully connected layers of
    an FCN or a DeconvNet; three colours are summed into grey.

    Args:
        network: freshly initialised; changed in place.
        start: a model file, a .pt, .pth or .safetensors file of a classifier, or the name of a packaged model.
        kind: name of the network in the registry.
        arguments: of the network's class.

    Raises:
        ConfigError: no such file, or a model of another network.
        ModelError: a file that cannot be read, or a layer that does not fit.
    """
    path = resolve_model(start)
    if start in packaged_models() or _has_card(path):
        return _from_model(network, path, start, f"{kind} {arguments}")
    return _from_classifier(network, path, start, kind)


def _has_card(path: Path) -> bool:
    """Whether a file is a model file, complete or not; other .safetensors files have no card."""
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin"):
        return False
    with path.open("rb") as file:
        size = min(int.from_bytes(file.read(8), "little"), 1 << 20)
        return path.suffix != ".safetensors" or f'"{CARD_KEY}"'.encode() in file.read(size)


def _from_model(network: nn.Module, path: Path, start: str, asked: str) -> InitialWeights:
    initial = load_model_file(path)
    # Equal networks can be written with different arguments; compare the modules.
    finer = _is_finer(network, initial.network)
    if not finer and str(initial.network) != str(network):
        raise ConfigError(
            f"network.start {start} is {initial.card.network} {initial.card.arguments}, not {asked}; use the same name "
            "and arguments, a coarser FCN with the same arguments, or the state dict of a VGG16 classifier"
        )
    state = initial.network.state_dict()
    layers = run_order(network)
    kept = [name for name in layers if f"{name}.weight" in state and not (finer and name == "upsample")]
    if not finer:
        network.load_state_dict(state)
        return InitialWeights(start, {name: name for name in layers}, (), ())
    tensors = {name: tensor for name, tensor in state.items() if name.rpartition(".")[0] in kept}
    return _load(network, tensors, InitialWeights(start, {name: name for name in kept}, ("upsample",), ()))


def _is_finer(network: nn.Module, initial: nn.Module) -> bool:
    """Whether a network is the finer one of two FCNs that are equal up to the head."""
    if not (isinstance(network, FCN) and isinstance(initial, FCN) and len(network.scores) > len(initial.scores)):
        return False
    return all(str(getattr(network, part)) == str(getattr(initial, part)) for part in ("stages", "classifier", "head"))


def _from_classifier(network: nn.Module, path: Path, start: str, kind: str) -> InitialWeights:
    tensors, convolutions = _read_classifier(path, start)
    if not isinstance(network, FCN | DeconvNet):
        raise ConfigError(
            f"network.start {start} is a VGG16 classifier, which starts fcn32s, fcn16s, fcn8s and deconvnet, not {kind}"
        )
    sources = [*convolutions, *_FULLY_CONNECTED]
    targets = [name for name in run_order(network) if isinstance(network.get_submodule(name), nn.Conv2d)]
    norms = normed_convolutions(network)
    loaded: dict[str, Tensor] = {}
    taken: dict[str, str] = {}
    for number, (source, target) in enumerate(zip(sources, targets[: len(sources)], strict=True)):
        weight, bias = _kernel(tensors, source, network.get_submodule(target), start, grey=number == 0)
        part, _, index = source.rpartition(".")
        norm = f"{part}.{int(index) + 1}"
        values = _norm(tensors, norm, len(bias), start) if f"{norm}.running_mean" in tensors else None
        taken[target] = source
        if target in norms:
            # Without a norm in the file, that of the network is the identity in eval mode.
            one, zero = torch.ones_like(bias), torch.zeros_like(bias)
            loaded |= _named(norms[target], values or (one, zero, zero, one - _NORM_EPSILON))
            taken |= {norms[target]: norm} if values else {}
        elif values:
            scale = values[0] / (values[3] + _NORM_EPSILON).sqrt()
            weight, bias = weight * scale.view(-1, 1, 1, 1), (bias - values[2]) * scale + values[1]
            taken[target] = f"{source} with {norm}"
        loaded |= _named(target, (weight, bias))
    used = " ".join(taken.values()).split()
    left_out = dict.fromkeys(name.rpartition(".")[0] for name in tensors if name.rpartition(".")[0] not in used)
    return _load(network, loaded, InitialWeights(start, taken, tuple(left_out), ()))


def _read_classifier(path: Path, start: str) -> tuple[dict[str, Tensor], list[str]]:
    """Tensors of a VGG16 classifier, and the names of its convolutions in order.

    Raises:
        ModelError: it is none.
    """
    state = read_state_dict(path)
    tensors = without_prefixes(state.tensors, lambda tensors: any(name.startswith("features.") for name in tensors))
    features = sorted({int(found[1]) for name in tensors if (found := re.match(r"features\.(\d+)\.", name))})
    if not features or f"{_FULLY_CONNECTED[0]}.weight" not in tensors:
        raise ModelError(
            f"network.start {start} is neither a model file nor a VGG16 classifier (features.0.weight .. "
            "classifier.0.weight); make a model file of it with `volseg models import`"
        )
    convolutions = [f"features.{n}" for n in features if f"features.{n}.running_mean" not in tensors]
    if len(convolutions) != _FEATURES:
        raise ModelError(
            f"network.start {start} has {len(convolutions)} convolutions before {_FULLY_CONNECTED[0]}, VGG16 has "
            f"{_FEATURES}; use a classifier of configuration D (vgg16 or vgg16_bn)"
        )
    return tensors, convolutions


def _named(layer: str, values: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Tensors of a layer by name."""
    return {f"{layer}.{role}": value for role, value in zip(_ROLES, values, strict=False)}


def _kernel(tensors: dict[str, Tensor], source: str, layer: Any, start: str, *, grey: bool) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a classifier's layer for a layer of the network.

    Raises:
        ModelError: the shapes do not fit, or values are not finite.
    """
    weight, bias = tensors.get(f"{source}.weight"), tensors.get(f"{source}.bias")
    if weight is None or bias is None:
        missing = f"{source}.{'weight' if weight is None else 'bias'}"
        raise ModelError(f"network.start {start} does not fit: it has no {missing}; use a complete classifier")
    shape, expected = tuple(weight.shape), tuple(layer.weight.shape)
    kernel = weight.float()
    if len(shape) == 2 and shape[1] == layer.weight[0].numel():
        kernel = kernel.view(-1, *expected[1:])
    if grey and len(shape) == 4:
        # Neighbouring sections begin with 0: the network starts as the classifier of its middle section.
        colours, kernel = kernel, torch.zeros(shape[0], expected[1], *shape[2:])
        kernel[:, expected[1] // 2] = colours.sum(dim=1)
    if tuple(kernel.shape) != expected or len(bias) != layer.out_channels:
        width = len(tensors["features.0.weight"])
        raise ModelError(
            f"network.start {start} does not fit: it has {source}.weight {shape} where the network has {expected}; its "
            f"width is {width}, and its fully connected layers must have {classifier_width(width)} channels"
        )
    if not (kernel.isfinite().all() and bias.isfinite().all()):
        raise ModelError(f"network.start {start}: {source} must hold finite floats; use another file")
    return kernel, bias.float()


def _norm(tensors: dict[str, Tensor], norm: str, width: int, start: str) -> tuple[Tensor, ...]:
    """Weight, bias, mean and variance of a norm."""
    values = [tensors.get(f"{norm}.{role}") for role in _ROLES]
    complete = tuple(value.float() for value in values if value is not None and value.shape == (width,))
    if len(complete) < len(values) or not all(value.isfinite().all() for value in complete):
        raise ModelError(f"network.start {start}: {norm} is no batch norm of {width} channels with finite values")
    return complete


def _load(network: nn.Module, tensors: dict[str, Tensor], weights: InitialWeights) -> InitialWeights:
    """Load some layers, and set the scores of an FCN that the file does not have to 0."""
    given = {name.rpartition(".")[0] for name in tensors}
    fresh = tuple(name for name in run_order(network) if name not in given)
    for name in fresh:
        if isinstance(network, FCN) and f"{name}.".startswith(_SCORES):
            for parameter in network.get_submodule(name).parameters():
                nn.init.zeros_(parameter)
    network.load_state_dict({**network.state_dict(), **tensors})
    # An FCN's bilinear kernels are fixed: nothing to take, nothing to learn.
    learned = tuple(name for name in fresh if next(network.get_submodule(name).parameters()).requires_grad)
    return InitialWeights(weights.file, weights.taken, weights.left_out, learned)
