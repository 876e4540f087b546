"""Values as people type them on the command line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from volseg.blocks import Zyx, ZyxFloat, parse_zyx
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from volseg.storage import Stack


class ZyxType(click.ParamType[Any]):
    """Three whole numbers, Z,Y,X."""

    name = "Z,Y,X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Zyx:
        """Read the text."""
        try:
            zyx = parse_zyx(str(value), param.opts[0] if param else "value")
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None
        if min(zyx) < 1:
            self.fail(f"{value}: each number must be at least 1", param, ctx)
        return zyx


class HaloType(click.ParamType[Any]):
    """`auto`, `exact`, or three whole numbers."""

    name = "auto|exact|Z,Y,X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | Zyx:
        """Read the text."""
        if value in ("auto", "exact"):
            return str(value)
        try:
            zyx = parse_zyx(str(value), "--halo")
        except ConfigError as error:
            raise click.UsageError(f"{error}, or auto, or exact", ctx) from None
        if min(zyx) < 0:
            self.fail(f"{value}: a halo cannot be negative", param, ctx)
        return zyx


class NanometresType(click.ParamType[Any]):
    """Three lengths in nanometres, Z,Y,X."""

    name = "Z,Y,X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZyxFloat:
        """Read the text."""
        try:
            z, y, x = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not three numbers; write nanometres as Z,Y,X, such as 50,4,4", param, ctx)
        if not all(math.isfinite(size) and size > 0 for size in (z, y, x)):
            self.fail(f"{value!r}: each size must be above 0 nm", param, ctx)
        return z, y, x


def count_text(stack: Stack) -> str:
    """A stack's size in words."""
    z, y, x = stack.shape
    return f"{z} sections of {y} x {x}, {stack.dtype}"
