"""Reads state dicts without running code."""

from __future__ import annotations

import os
import pickle
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from volseg.errors import ConfigError, ModelError
from volseg.models.tensor_header import read_header

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model_state", "network_weights", "model", "net")
"""Keys of the state dict in checkpoints."""
_PREFIXES = ("module.", "model.", "network.", "net.", "_orig_mod.")
"""Prefixes that wrappers add to every name: DataParallel, Lightning and others, torch.compile."""
_MAX_NESTING = 4
"""Levels of a checkpoint that are looked into; a pickle can contain itself."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""Of the tensors of a network."""
COUNTER = "num_batches_tracked"
_WAY_OUT = "save it again with torch.save(network.state_dict(), FILE)"
_ARCHIVES = {
    "constants.pkl": ("a TorchScript archive", "torch.jit.load({file!r}).state_dict()"),
    "archive_format": ("an archive of torch.export", "torch.export.load({file!r}).state_dict"),
}
"""File in an archive -> what the archive is, and how its owner gets the state dict."""


@dataclass(frozen=True, slots=True)
class StateDict:
    """Tensors of a file by name.

    Attributes:
        path: the file.
        tensors: name to tensor, without the counters of batch norms.
        ordered: whether the tensors are in the order of their definition; a .safetensors file sorts them.
        ignored: entries that are not tensors but numbers, texts or lists of them.
    """

    path: Path
    tensors: dict[str, Tensor]
    ordered: bool
    ignored: tuple[str, ...] = ()


def read_state_dict(path: Path) -> StateDict:
    """Read the tensors of a .pt, .pth or plain .safetensors file; nothing in it can run code.

    Raises:
        ConfigError: there is no such file.
        ModelError: an archive with code, a pickle that holds more than tensors, not a state dict, or a tensor that is
            not dense or not of floats.
    """
    if not os.path.isfile(path):  # noqa: PTH113 - that of pathlib raises errors
        raise ConfigError(f"there is no file {path}; name a .pt, .pth or .safetensors file that holds a state dict")
    ordered = path.suffix != ".safetensors"
    content = _torch_content(path) if ordered else _safetensors_content(path)
    for _ in range(_MAX_NESTING):
        if isinstance(content, Mapping) and (key := _state_dict_key(content)) is not None:
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ModelError(
            f"{path} holds {_kind(content)}, not a state dict; {_WAY_OUT}, where the network is not frozen"
        )
    others = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    tensors = {name: value for name, value in content.items() if name not in others and not name.endswith(COUNTER)}
    unknown = others if not tensors else [name for name in others if not _is_plain({name: content[name]})]
    if unknown:
        raise ModelError(
            f"{path} is not a state dict: its entry {unknown[0]!r} is {_kind(content[unknown[0]])}; {_WAY_OUT}"
        )
    _check_dense(path, tensors)
    return StateDict(path, tensors, ordered, tuple(others))


def without_prefixes(tensors: dict[str, Tensor], expected: Callable[[dict[str, Tensor]], bool]) -> dict[str, Tensor]:
    """Remove prefixes that wrappers add to all names, until the names are the expected ones."""
    while tensors and not expected(tensors):
        prefix = next((prefix for prefix in _PREFIXES if all(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            break
        tensors = {name.removeprefix(prefix): tensor for name, tensor in tensors.items()}
    return tensors


def _torch_content(path: Path) -> Any:
    _refuse_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        match = re.search(r"GLOBAL (\S+)", str(error))
        content = f" ({match[1]})" if match else ""
        raise ModelError(
            f"{path} is a pickle of more than tensors{content}, which could run code and is never loaded; {_WAY_OUT}"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its instructions lead to
        raise ModelError(f"{path} cannot be read as a file of torch.save ({_first_line(error)}); {_WAY_OUT}") from error


def _refuse_archive(path: Path) -> None:
    """Raise ModelError for an archive that contains a program beside its weights."""
    try:
        with zipfile.ZipFile(path) as archive:
            files = {name.partition("/")[2] for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):  # damaged names raise ValueError
        return
    for file, (kind, expression) in _ARCHIVES.items():
        if file in files:
            state_dict = expression.format(file=str(path))
            raise ModelError(
                f"{path} is {kind}, which contains code and is never loaded; if you trust it, run "
                f"`import torch; torch.save({state_dict}, {str(path.with_suffix('')) + '-weights.pt'!r})` in Python, "
                "and import that file"
            )


def _safetensors_content(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            read_header(path, file, path.stat().st_size)
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as .safetensors ({_first_line(error)}); write it again") from error


def _state_dict_key(content: Mapping[Any, Any]) -> str | None:
    return next((name for name in _STATE_DICT_KEYS if isinstance(content.get(name), Mapping)), None)


def _check_dense(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise ModelError for a tensor that is sparse, nested, quantised, without values, or not of floats."""
    for name, tensor in tensors.items():
        dense = tensor.layout == torch.strided and not tensor.is_nested and not tensor.is_meta
        if not dense or tensor.dtype not in _DTYPES:
            kind = "nested" if tensor.is_nested else f"{tensor.dtype}, {tensor.layout}, on {tensor.device}"
            raise ModelError(f"{path}: {name} must be a dense tensor of floats, not {kind}; save it as float32")


def _is_plain(value: object, depth: int = 0) -> bool:
    """Whether a value is a number, a text, or a list or table of them, as milesial's `mask_values`."""
    if depth > _MAX_NESTING:
        return False
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(item, depth + 1) for name, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(item, depth + 1) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _kind(value: object) -> str:
    return f"a {type(value).__name__}" if value != {} else "nothing"


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].partition(". ")[0] or type(error).__name__
