"""A trained network with all that is needed to use it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from safetensors.torch import load, save
from torch import nn
from torch.overrides import TorchFunctionMode

from volseg.errors import ConfigError, ModelError
from volseg.models.card import CARD_KEY, ModelCard, ModelHeader, header_of, read_model_file, weights_digest
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
    """A network as trained, its card and its digest.

    Attributes:
        network: the float32 torch module in eval mode, mapping (N, C, y, x) to (N, classes, y', x').
        card: what its file says of it.
        digest: identifies weights, architecture and normalisation.
    """

    network: nn.Module
    card: ModelCard
    digest: str

    def normalize(self, raw: NDArray[Any], constants: Statistics | None = None) -> NDArray[np.float32]:
        """The network's input for grey values of (z, y, x) or (y, x): float32, same shape.

        Args:
            raw: grey values.
            constants: (mean, std), one pair or one a section; by default the model's own mode decides, and `raw`
                counts as the whole volume.
        """
        return normalize(raw, self.card.normalization.statistics_of(raw) if constants is None else constants)

    def activate(self, output: Tensor) -> Tensor:
        """The membrane probability (N, 1, y, x) of the network's output (N, classes, y, x), in float32."""
        return self.probabilities(output, ("membrane",))

    def probabilities(self, output: Tensor, classes: tuple[str, ...] = ()) -> Tensor:
        """The probabilities (N, classes, ..) of the network's output (N, channels, ..), in float32.

        Args:
            output: the network's.
            classes: which, in this order; all of the model's by default.

        Raises:
            ModelError: the model has no class of such a name.
        """
        output = output.float()
        made = output.softmax(dim=1) if self.card.activation == "softmax" else output.sigmoid()
        channels = self.card.channels_of(classes or self.card.classes)
        return made if channels == list(range(made.shape[1])) else made[:, channels]


def card_for(  # noqa: PLR0913 - each is a field of the card
    network: nn.Module,
    *,
    name: str,
    kind: str,
    arguments: dict[str, Any],
    normalization: Normalization,
    voxel_nm: ZyxFloat,
    classes: tuple[str, ...] | None = None,
    activation: Literal["sigmoid", "softmax"] | None = None,
    **more: Any,
) -> ModelCard:
    """The card of a network; reach and stride are derived from the network itself.

    Args:
        network: the network.
        name: what to call the model.
        kind: the network's name in the registry.
        arguments: what it was made with.
        normalization: how its input is made.
        voxel_nm: voxel size of its training data, (z, y, x) in nanometres.
        classes: what each output channel stands for; by default membrane, or cell and membrane where there are two.
        activation: what makes probability of the output; by default sigmoid for one class, softmax for more.
        more: further fields of the card: training, license.

    Raises:
        ConfigError: another number of classes than the network has output channels.
    """
    channels = _channels(network)
    if classes is None:
        classes = ("membrane",) if channels == 1 else ("cell", "membrane")
    if len(classes) != channels:
        raise ConfigError(
            f"{len(classes)} classes ({', '.join(classes)}) do not name the {channels} output channels of this "
            "network; give one name a channel, in their order"
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
        **more,
    )


def _channels(network: nn.Module) -> int:
    head: Any = network.get_submodule("head")
    return int(head.out_channels)


def save_model(path: Path, network: nn.Module, card: ModelCard, *, float16: bool = False) -> ModelHeader:
    """Write a model file; the old one under this name stays whole until the new one is.

    Args:
        path: the file.
        network: on whatever device.
        card: what the file says of it.
        float16: round kernels to float16, for half the size; biases and norms stay as they are, and whoever loads the
            file computes in float32 with the rounded weights.

    Raises:
        ModelError: no room, or no right to write.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if float16:
        state = {name: tensor.half() if tensor.ndim > 1 else tensor for name, tensor in state.items()}
    bare = save(state)
    tensors = memoryview(bare)[8 + int.from_bytes(bare[:8], "little") :]
    digest = weights_digest(card, tensors)
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
        ModelError: not a model file, or one whose weights or reach are not those of its network.
    """
    content = read_model_file(path)
    header = header_of(Path(path), content)
    card = header.card
    with _SkipInit():
        network = build_network(card.network, card.arguments)
    try:
        state = {name: _in_float32(tensor) for name, tensor in load(content).items()}
        network.load_state_dict(state, assign=True)
    except RuntimeError as error:
        raise ModelError(f"the weights in {path} are not those of {card.network} {card.arguments}: {error}") from error
    if network_footprint(network) != card.footprint:
        raise ModelError(
            f"the card of {path} states another reach or stride than its network has, and blocks would show seams; "
            "write the file again with this version of volseg"
        )
    return Model(network.eval(), card, header.digest)


class _SkipInit(TorchFunctionMode):
    """Parameters that are made here hold anything: they are about to be replaced, and drawing them takes a while."""

    def __torch_function__(self, call: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Pass over what draws."""
        if call in _DRAW or getattr(call, "__module__", "") == nn.init.__name__:
            return args[0] if args else kwargs["tensor"]
        return call(*args, **(kwargs or {}))


_DRAW = (torch.Tensor.normal_, torch.Tensor.uniform_)


def _in_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def shared_model(path: str | Path) -> Model:
    """As `load_model_file`, for those who leave the model as it is: the last one is kept until it is let go.

    Raises:
        ModelError: as there.
    """
    try:
        now = Path(path).stat()
    except OSError:
        return load_model_file(path)  # which says what is wrong
    return _kept(str(path), now.st_mtime_ns, now.st_size)


@lru_cache(maxsize=1)
def _kept(path: str, *_: int) -> Model:
    return load_model_file(path)


def clear_model_cache() -> None:
    """Forget the model that `shared_model` keeps."""
    _kept.cache_clear()
