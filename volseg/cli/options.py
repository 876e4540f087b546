"""Types of option values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from volseg.blocks import MAX_LEVELS, Part, Zyx, ZyxFloat, is_voxel_size, parse_part, parse_zyx
from volseg.config.tolerance import Tolerance
from volseg.config.toml import parse_toml
from volseg.errors import ConfigError


class ZyxType(click.ParamType[Any]):
    """Three whole numbers, Z,Y,X."""

    name = "Z,Y,X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Zyx:
        """Parse the text."""
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
        """Parse the text."""
        if value in ("auto", "exact"):
            return str(value)
        try:
            zyx = parse_zyx(str(value), "--halo")
        except ConfigError as error:
            raise click.UsageError(f"{error}, or auto, or exact", ctx) from None
        if min(zyx) < 0:
            self.fail(f"{value}: a halo cannot be negative", param, ctx)
        return zyx


class LevelsType(click.ParamType[Any]):
    """`auto`, which is None, or a number of coarser levels."""

    name = "auto|N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Parse the text."""
        if value == "auto":
            return None
        try:
            count = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a number of coarser levels; write auto, 0 or 4", param, ctx)
        if not 0 <= count <= MAX_LEVELS:
            self.fail(f"{value}: the number of coarser levels is 0 to {MAX_LEVELS}", param, ctx)
        return count


class PartType(click.ParamType[Any]):
    """A part of a run, K/N."""

    name = "K/N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Part:
        """Parse the text."""
        try:
            return parse_part(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class ToleranceType(click.ParamType[Any]):
    """A percentage of voxels and a number of grey levels, PERCENT,LEVELS."""

    name = "PERCENT,LEVELS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Tolerance:
        """Parse the text."""
        try:
            percent, levels = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers; write PERCENT,LEVELS, such as 99.9,8", param, ctx)
        try:
            return Tolerance(percent / 100, levels)
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None


class RangeType(click.ParamType[Any]):
    """Two numbers, LOW,HIGH."""

    name = "LOW,HIGH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, float]:
        """Parse the text."""
        try:
            low, high = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not two numbers; write LOW,HIGH, such as 2000,42000", param, ctx)
        return low, high


class NanometresType(click.ParamType[Any]):
    """A voxel size, Z,Y,X in nanometres."""

    name = "Z,Y,X"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZyxFloat:
        """Parse the text."""
        try:
            z, y, x = (float(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not three numbers; write nanometres as Z,Y,X, such as 50,4,4", param, ctx)
        if not is_voxel_size((z, y, x)):
            self.fail(f"{value!r}: each size must be 0.1 nm at least", param, ctx)
        return z, y, x


class KeyValueType(click.ParamType[Any]):
    """A name and a TOML value, KEY=VALUE."""

    name = "KEY=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        """Parse the text."""
        key, sign, text = str(value).partition("=")
        try:
            parsed = parse_toml(f"value = {text}".encode())
        except ValueError:
            parsed = {}
        if not (key.strip().isidentifier() and sign and parsed.keys() == {"value"}):
            self.fail(f"{value!r} is not KEY=VALUE, such as width=32, padded=true or kernel=[1,3,3]", param, ctx)
        return key.strip(), parsed["value"]


_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])


def reading_options(command: _CommandT) -> _CommandT:
    """Declare what users state of SOURCE: `--axes`, `--channel` and `--missing`."""
    options = (
        click.option("--axes", type=AxesType(),
                     help="Order of SOURCE's last axes, if it is not z, y, x or not stated, such as x,y,z."),
        click.option("--channel", metavar="NAME", help="Channel (or time) of SOURCE to read, by name or number."),
        click.option("--missing", type=click.Choice(["refuse", "blank", "nearest"]),
                     help="For numbers that a folder of sections lacks: blank or nearest section.  [default: refuse]"),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


class AxesType(click.ParamType[Any]):
    """Names of axes, x,y,z."""

    name = "x,y,z"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the text."""
        from volseg.storage.axes import parse_axes

        try:
            return ",".join(parse_axes(str(value)))
        except ConfigError as error:
            raise click.UsageError(str(error), ctx) from None


class NamesType(click.ParamType[Any]):
    """Distinct names, a,b,c."""

    name = "a,b,c"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        """Parse the text."""
        names = tuple(part.strip() for part in str(value).split(","))
        if not all(names) or len(set(names)) != len(names):
            self.fail(f"{value!r} is not a list of distinct names, such as cell,membrane", param, ctx)
        return names
