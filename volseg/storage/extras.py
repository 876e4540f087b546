"""Packages of extras, which are imported where a volume needs them."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from volseg.errors import SourceError


def require(module: str, extra: str, location: str) -> Any:
    """Import a module that an extra installs.

    Args:
        module: its name.
        extra: of volseg, which installs it.
        location: of the volume that needs it, for the message.

    Raises:
        SourceError: it is not installed; says with which command it is.
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise SourceError(
            f"{location} is read with {module}, which is not installed here ({error}); install it with: pip install "
            f"'volseg[{extra}]'"
        ) from error
