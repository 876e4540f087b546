"""Packaged models, and the lookup of model files."""

from __future__ import annotations

import os
from pathlib import Path

from volseg.errors import ConfigError
from volseg.models.registry import NETWORKS
from volseg.text import did_you_mean

_FOLDER = Path(__file__).parent / "weights"


def packaged_models() -> dict[str, Path]:
    """Name and file of each packaged model."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def model_card_text(name: str) -> str:
    """Model card of a packaged model in Markdown: data, licence, scores, limits; empty if there is none."""
    path = packaged_models().get(name, _FOLDER / name).with_suffix(".md")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def resolve_model(file_or_name: str, others: tuple[str, ...] = ()) -> Path:
    """Return the file of a packaged model, or the file itself.

    Args:
        file_or_name: what to look up.
        others: networks that a user may have meant as well.

    Raises:
        ConfigError: neither a packaged model nor a file.
    """
    packaged = packaged_models()
    if file_or_name in packaged:
        return packaged[file_or_name]
    path = Path(file_or_name)
    if os.path.isfile(path):  # noqa: PTH113 - that of pathlib raises errors
        return path
    if "://" in file_or_name:
        raise ConfigError(
            f"model {file_or_name!r} is a URL; models are read from paths: copy the file to one that all workers see, "
            "and name that"
        )
    known = ", ".join(packaged) or "none with this version"
    name = f"model {file_or_name!r}"
    if file_or_name in NETWORKS:
        name += " is a network without weights: it"
    files = (str(path.with_name(file.name)) for file in path.parent.glob("*.safetensors"))
    hint = did_you_mean(file_or_name, (*packaged, *others, *files))
    raise ConfigError(
        f"{name} is neither a file nor a packaged model{', nor a network' if others else ''}{hint}; packaged models: "
        f"{known}; or name a .safetensors file that `volseg train` wrote"
    )
