"""Packaged models, and the lookup of model files."""

from __future__ import annotations

from pathlib import Path

from volseg.errors import ConfigError

_FOLDER = Path(__file__).parent / "weights"


def packaged_models() -> dict[str, Path]:
    """Name and file of each packaged model."""
    return {path.stem: path for path in sorted(_FOLDER.glob("*.safetensors"))}


def model_card_text(name: str) -> str:
    """Model card of a packaged model in Markdown: data, licence, scores, limits; empty if there is none."""
    path = packaged_models().get(name, _FOLDER / name).with_suffix(".md")
    return path.read_text(encoding="utf-8") if path.exists() else ""


def resolve_model(file_or_name: str) -> Path:
    """Return the file of a packaged model, or the file itself.

    Raises:
        ConfigError: neither a packaged model nor a file.
    """
    packaged = packaged_models()
    if file_or_name in packaged:
        return packaged[file_or_name]
    path = Path(file_or_name)
    if path.is_file():
        return path
    known = f"packaged models are {', '.join(packaged)}" if packaged else "no models are packaged with this version"
    raise ConfigError(
        f"model {file_or_name!r} is neither a file nor a packaged model ({known}); "
        "name a .safetensors file that `volseg train` wrote"
    )
