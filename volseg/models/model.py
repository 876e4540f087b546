"""A trained network with its normalisation and activation; reads and writes model files."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import nn
from torch.overrides import TorchFunctionMode

from volseg.errors import ConfigError, ModelError
from volseg.models.card import CARD_KEY, ModelCard, ModelHeader, read_model_file, weights_digest
from volseg.models.footprint import network_footprint
from volseg.models.registry import build_network
from volseg.ops import Normalization, Statistics, normalize

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from volseg.blocks import ZyxFloat


@dataclass(frozen=True)
class Model:
    """A trained network, its card and its digest.

    Attributes:
        network: the float32 torch module in eval mode, mapping (N, C, y, x) to (N, classes, y', x').
        card: metadata of the file.
        digest: identifies weights, architecture and normalisation.
    """

    network: nn.Module
    card: ModelCard
    digest: str

    def normalize(self, raw: NDArray[Any], constants: Statistics | None = None) -> NDArray[np.float32]:
        """Normalise grey values (z, y, x) or (y, x) to the network's input: float32, same shape.

        Args:
            raw: grey values.
            constants: (mean, std), one pair or one per section; by default computed in the model's mode, with `raw`
                as the whole volume.
        """
        return normalize(raw, self.card.normalization.statistics_of(raw) if constants is None else constants)

    def activate(self, output: Tensor) -> Tensor:
        """Return the membrane probability (N, 1, y, x) of the network's output (N, classes, y, x), in float32."""
        return self.probabilities(output, ("membrane",))

    def probabilities(self, output: Tensor, classes: tuple[str, ...] = ()) -> Tensor:
        """Return the probabilities (N, classes, ..) of the network's output (N, channels, ..), in float32.

        Args:
            output: of the network.
            classes: names, in this order; all classes of the model by default.

        Raises:
            ConfigError: the model has no such class.
        """
        output = output.float()
        probability = output.softmax(dim=1) if self.card.activation == "softmax" else output.sigmoid()
        channels = self.card.channels_of(classes or self.card.classes)
        return probability if channels == list(range(probability.shape[1])) else probability[:, channels]


def build_card(  # noqa: PLR0913 - each is a field of the card
    network: nn.Module,
    *,
    name: str,
    kind: str,
    arguments: dict[str, Any],
    normalization: Normalization,
    voxel_nm: ZyxFloat,
    classes: tuple[str, ...] | None = None,
    activation: Literal["sigmoid", "softmax"] | None = None,
    **card_fields: Any,
) -> ModelCard:
    """Build the card of a network; reach and stride are derived from the network.

    Args:
        network: the network.
        name: of the model.
        kind: name of the network in the registry.
        arguments: of the network's class.
        normalization: of the input.
        voxel_nm: voxel size of the training data, (z, y, x) in nanometres.
        classes: names of the output channels; by default membrane, or cell and membrane for two channels.
        activation: of the output; by default sigmoid for one class, softmax for several.
        card_fields: further fields of the card: training, license.

    Raises:
        ConfigError: the numbers of classes and output channels differ.
    """
    channels = _output_channels(network)
    if classes is None:
        classes = ("membrane",) if channels == 1 else ("cell", "membrane")
    if len(classes) != channels:
        raise ConfigError(
            f"{len(classes)} classes ({', '.join(classes)}) do not name the {channels} output channels of this "
            "network; give one name per channel, in order"
        )
    return ModelCard(
        name=name,
        network=kind,
        arguments=arguments,
        footprint=network_footprint(network),
        normalization=normalization,
        activation=activation or ("sigmoid" if len(classes) == 1 else "softmax"),
        classes=classes,
        voxel_nm=voxel_nm,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        **card_fields,
    )


def _output_channels(network: nn.Module) -> int:
    head: Any = network.get_submodule("head")
    return int(head.out_channels)


def save_model(path: Path, network: nn.Module, card: ModelCard, *, float16: bool = False) -> ModelHeader:
    """Write a model file; replaces an existing file atomically.

    Args:
        path: of the file.
        network: on any device.
        card: metadata.
        float16: round kernels to float16, for half the size; biases and norms stay float32. Loaded models compute in
            float32 with the rounded weights.

    Raises:
        ModelError: the file cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if float16:
        state = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.items()}
    content = save(state)
    tensors = memoryview(content)[8 + int.from_bytes(content[:8], "little") :]
    digest = weights_digest(card, [tensors])
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(save(state, {CARD_KEY: card.model_dump_json(), "digest": digest}))
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise ModelError(f"cannot write {path}: {error.strerror}; free some space, or choose another path") from error
    return ModelHeader(path=str(path.resolve()), card=card, digest=digest)


def load_model_file(path: str | Path) -> Model:
    """Load a model file.

    Raises:
        ModelError: not a model file, weights that are NaN or infinite, or weights or reach that do not match the
            network.
    """
    header, content = read_model_file(path)
    card = header.card
    try:
        with SkipInit():
            network = build_network(card.network, card.arguments)
    except ConfigError as error:
        raise ModelError(f"cannot load {path}: {error}") from error
    try:
        state = {name: _to_float32(tensor) for name, tensor in load(content).items()}
        network.load_state_dict(state, assign=True)
    except (RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"the weights in {path} do not match {card.network} {card.arguments}: {reason:.300}"
        ) from error
    if damaged := [name for name, tensor in state.items() if not tensor.isfinite().all()]:
        raise ModelError(
            f"{path}: {damaged[0]} holds NaN or infinity, so the map would be wrong; take an earlier model of the "
            "training"
        )
    if network_footprint(network) != card.footprint:
        raise ModelError(
            f"reach or stride in the card of {path} differ from those of its network, so blocks would show seams; "
            "write the file again with this version of volseg"
        )
    return Model(network.eval(), card, header.digest)


class SkipInit(TorchFunctionMode):
    """Skips the slow random initialisation of parameters that are replaced afterwards."""

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call all functions but those of initialisation."""
        if call in _RANDOM_INIT or getattr(call, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return call(*args, **(kwargs or {}))


_RANDOM_INIT = (torch.Tensor.normal_, torch.Tensor.uniform_)


def _to_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def load_shared_model(path: str | Path) -> Model:
    """Load a model file, or return the cached model if the file has not changed; callers must not modify it.

    Raises:
        ModelError: as `load_model_file`.
    """
    try:
        status = Path(path).stat()
    except OSError:
        return load_model_file(path)  # raises the right error
    return _load_cached(str(path), status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _load_cached(path: str, *_: int) -> Model:
    return load_model_file(path)


def clear_model_cache() -> None:
    """Release the model that `load_shared_model` caches."""
    _load_cached.cache_clear()
