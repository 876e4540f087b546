"""Reads state dicts without running code, and matches their tensors to a network."""

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

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model", "net")
"""Keys of the state dict in checkpoints."""
_PREFIXES = ("module.", "model.", "network.", "_orig_mod.")
"""Prefixes that wrappers add to every name: DataParallel, Lightning and others, torch.compile."""
_COUNTER = "num_batches_tracked"
_ROLES = ("weight", "bias", "running_mean", "running_var")
"""Kinds of tensors with the same shape; tensors of different kinds do not match."""
_WAY_OUT = "save it again with torch.save(network.state_dict(), FILE)"


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors of a file by name.

    Attributes:
        path: the file.
        tensors: name to tensor, without the counters of batch norms.
        ordered: whether the tensors are in the network's order; a .safetensors file sorts them.
    """

    path: Path
    tensors: dict[str, Tensor]
    ordered: bool


@dataclass(frozen=True, slots=True)
class MatchedTensors:
    """Tensors under the names of a network.

    Attributes:
        tensors: state dict of the network.
        renamed: number of tensors matched by order and shape; 0 if the names agree.
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
    while isinstance(content, Mapping) and (key := _state_dict_key(content)) is not None:
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{path} holds {_kind(content)}, not a state dict; {_WAY_OUT}")
    others = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others:
        raise ModelError(
            f"{path} is not a state dict: its entry {others[0]!r} is {_kind(content[others[0]])}; {_WAY_OUT}"
        )
    return StateDict(path, {name: value for name, value in content.items() if not name.endswith(_COUNTER)}, ordered)


def _torch_content(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        content = f" ({match[1]})" if match else ""
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


def _state_dict_key(content: Mapping[Any, Any]) -> str | None:
    return next((name for name in _STATE_DICT_KEYS if isinstance(content.get(name), Mapping)), None)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value != {} else "nothing"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__


def match_tensors(state: StateDict, network: nn.Module) -> MatchedTensors:
    """Match tensors to the names of a network.

    Tensors are matched by name, without prefixes of wrappers, or else by order if all shapes agree.

    Raises:
        ModelError: a tensor that does not match, or one that is not finite.
    """
    expected = network.state_dict()
    counters = {name: expected.pop(name) for name in list(expected) if name.endswith(_COUNTER)}
    tensors = _without_prefixes(state.tensors, expected)
    same = tensors.keys() == expected.keys()
    if not same and not state.ordered:
        pairs_of_names = ((tensors, expected), (expected, tensors))
        extra, missing = (next((name for name in a if name not in b), None) for a, b in pairs_of_names)
        raise ModelError(
            f"names differ: {state.path} holds {extra!r}, the network {missing!r}, and a .safetensors file has no "
            "order to match them by; give the .pt file, or rename its tensors"
        )
    pairs = [(name, name) for name in expected] if same else list(zip_longest(tensors, expected))
    _check_pairs(state.path, pairs, tensors, expected)
    matched = {target: tensors[name].to(expected[target].dtype) for name, target in pairs}
    return MatchedTensors(matched | counters, 0 if same else len(matched))


def _without_prefixes(tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that wrappers add to all names."""
    while tensors and tensors.keys() != expected.keys():
        prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _check_pairs(path: Path, pairs: Iterable[Pair], tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise ModelError for the first pair of names whose tensors do not match."""
    for name, target in pairs:
        same_shape = name is not None and target is not None and tensors[name].shape == expected[target].shape
        if not same_shape or _contradict(str(name), str(target), expected):
            raise ModelError(
                f"{path} does not fit: it has {_format(name, tensors)} where the network has "
                f"{_format(target, expected)}; choose another --network, or give its size with --argument KEY=VALUE"
            )
        if not (tensors[str(name)].is_floating_point() and tensors[str(name)].isfinite().all()):
            raise ModelError(f"{path}: {name} must hold finite floats; use an earlier checkpoint")


def _contradict(name: str, target: str, expected: dict[str, Tensor]) -> bool:
    """Whether the names exclude that two tensors of the same shape match."""
    role, target_role = name.rpartition(".")[2], target.rpartition(".")[2]
    return name != target and (name in expected or (role != target_role and {role, target_role} <= set(_ROLES)))


def _format(name: str | None, tensors: dict[str, Tensor]) -> str:
    return "nothing" if name is None else f"{name} {tuple(tensors[name].shape)}"
