"""Weights that others trained: read without running code, and fitted to one of volseg's networks."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from volseg.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from torch import nn

    Pair = tuple[str | None, str | None]

_NESTS = ("state_dict", "model_state_dict", "model", "net")
"""Where checkpoints keep the state dict."""
_PREFIXES = ("module.", "model.", "network.", "_orig_mod.")
"""What wrappers put before every name: DataParallel, Lightning and others, torch.compile."""
_COUNTER = "num_batches_tracked"
_ROLES = ("weight", "bias", "running_mean", "running_var")
"""Tensors of one shape that mean different things: these are never taken for each other."""
_WAY_OUT = "save it again with torch.save(network.state_dict(), FILE)"


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors by name, as a file holds them.

    Attributes:
        path: the file.
        tensors: name to tensor, without the counters of batch norms.
        ordered: whether they stand in the network's order; a .safetensors file sorts them.
    """

    path: Path
    tensors: dict[str, Tensor]
    ordered: bool


@dataclass(frozen=True, slots=True)
class MatchedTensors:
    """Tensors under the names of a network.

    Attributes:
        tensors: what the network loads.
        renamed: how many were matched by order and shape, because the names differ; 0 where the names agree.
    """

    tensors: dict[str, Tensor]
    renamed: int


def read_state_dict(path: Path) -> StateDict:
    """Read the tensors of a .pt, .pth or plain .safetensors file; nothing in it can run code.

    Raises:
        ConfigError: there is no such file.
        ModelError: a pickle that holds more than tensors, or not a state dict.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}; name a .pt, .pth or .safetensors file that holds a state dict")
    ordered = path.suffix != ".safetensors"
    content = _torch_content(path) if ordered else _safetensors_content(path)
    while isinstance(content, Mapping) and (nest := _nest(content)) is not None:
        content = content[nest]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds {_kind(content)}, not a state dict; {_WAY_OUT}")
    strangers = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if strangers:
        raise ModelError(
            f"{path} is not a state dict: its entry {strangers[0]!r} is {_kind(content[strangers[0]])}; {_WAY_OUT}"
        )
    return StateDict(path, {name: value for name, value in content.items() if not name.endswith(_COUNTER)}, ordered)


def _torch_content(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        content = f" ({named[1]})" if named else ""
        raise ModelError(
            f"{path} is a pickle of more than tensors{content}, which could run code and is never loaded; {_WAY_OUT}"
        ) from error
    except (RuntimeError, EOFError, ValueError, OSError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} cannot be read as a file of torch.save ({_first_line(error)}); {_WAY_OUT}") from error


def _safetensors_content(path: Path) -> Any:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as .safetensors ({_first_line(error)}); write it again") from error


def _nest(content: Mapping[Any, Any]) -> str | None:
    return next((name for name in _NESTS if isinstance(content.get(name), Mapping)), None)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value != {} else "nothing"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__


def fit_names(state: StateDict, network: nn.Module) -> MatchedTensors:
    """Give tensors the names that a network has for them.

    Where the names agree, perhaps behind the prefix of a wrapper, they decide. Where they do not, tensors are matched
    in their order, if all shapes agree.

    Raises:
        ModelError: a tensor that does not fit, or one that is not finite.
    """
    own = network.state_dict()
    wanted = {name: tensor for name, tensor in own.items() if not name.endswith(_COUNTER)}
    counters = {name: tensor for name, tensor in own.items() if name.endswith(_COUNTER)}
    given = _stripped(state.tensors, wanted)
    same = given.keys() == wanted.keys()
    if not same and not state.ordered:
        stranger, missing = (next((n for n in a if n not in b), None) for a, b in ((given, wanted), (wanted, given)))
        raise ModelError(
            f"names differ: {state.path} holds {stranger!r}, the network {missing!r}, and a .safetensors file keeps no "
            "order to match them by; give the .pt file, or rename its tensors"
        )
    pairs = [(name, name) for name in wanted] if same else list(zip_longest(given, wanted))
    _check_pairs(state.path, pairs, given, wanted)
    fitted = {own_name: given[name].to(wanted[own_name].dtype) for name, own_name in pairs}
    return MatchedTensors(fitted | counters, 0 if same else len(fitted))


def _stripped(tensors: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefixes that wrappers put before all names."""
    while tensors and tensors.keys() != wanted.keys():
        prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _check_pairs(path: Path, pairs: Iterable[Pair], given: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raises ModelError for the first pair of a given and a wanted tensor that do not fit together."""
    for name, own_name in pairs:
        fits = name is not None and own_name is not None and given[name].shape == wanted[own_name].shape
        if not fits or _contradict(str(name), str(own_name), wanted):
            raise ModelError(
                f"{path} does not fit: it has {_described(name, given)} where the network has "
                f"{_described(own_name, wanted)}; choose another --network, or give its size with --argument KEY=VALUE"
            )
        if not (given[str(name)].is_floating_point() and given[str(name)].isfinite().all()):
            raise ModelError(f"{path}: {name} must hold finite floats; use an earlier checkpoint")


def _contradict(name: str, own_name: str, wanted: dict[str, Tensor]) -> bool:
    """Whether the names say that two tensors of one shape are not the same."""
    role, own_role = name.rpartition(".")[2], own_name.rpartition(".")[2]
    return name != own_name and (name in wanted or (role != own_role and {role, own_role} <= set(_ROLES)))


def _described(name: str | None, tensors: dict[str, Tensor]) -> str:
    return "nothing" if name is None else f"{name} {tuple(tensors[name].shape)}"
