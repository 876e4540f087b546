"""`volseg`: imports a command when it is named, and prints errors as one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from volseg.cli.stop import STOPPED, ignore_stops, interrupt_once
from volseg.errors import MemoryPlanError, VolsegError
from volseg.system import UNLIMITED, address_space_limit, free_of_own_limits
from volseg.text import did_you_mean
from volseg.version import __version__

COMMANDS = (
    "convert", "pyramid", "train", "predict", "status", "verify", "evaluate", "models", "view", "cluster", "demo"
)  # fmt: skip

_DEBUG = "volseg.debug"
_MIN_ADDRESS_SPACE = 1792 << 20
"""The interpreter, torch and Zarr map 1.5 GiB."""
_OUT_OF_MEMORY = ("failed to map segment", "can't start new thread", "annot allocate memory")
"""What libraries say if they may map no more."""


class LazyGroup(click.Group):
    """Import the module of a command only when it is named, so that --help loads neither torch nor Dask."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of their use."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"volseg.cli.{cmd_name}"), cmd_name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; a wrong name gets the one that was probably meant."""
        name = str(args[0])
        if name not in COMMANDS and not name.startswith("-"):
            ctx.fail(f"there is no command {name!r}{did_you_mean(name, COMMANDS)}; choose from {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error becomes one line and an exit code, with --debug after its traceback."""
        try:
            _refuse_tight_limits()
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            raise SystemExit(STOPPED) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if isinstance(error, BrokenPipeError):  # whoever reads the output has stopped, which click handles
                raise
            raise _shown(error, debug=bool(ctx.meta.get(_DEBUG))) from None


def _shown(error: Exception, *, debug: bool) -> click.ClickException:
    """The error as click prints it: one line, and the exit code of its class."""
    from volseg.cli.unexpected import describe_unexpected, traceback_text

    if debug:
        click.echo(traceback_text(error), err=True, nl=False)
    limited = free_of_own_limits() != UNLIMITED
    if isinstance(error, VolsegError):
        message, code = str(error), error.exit_code
    elif isinstance(error, MemoryError) or (limited and any(part in str(error) for part in _OUT_OF_MEMORY)):
        way_out = "raise `ulimit -v`" if limited else "give a smaller --block or --tile, or fewer --workers"
        message, code = f"memory ran out ({str(error).strip() or type(error).__name__}); {way_out}", 1
    else:
        message, code = f"{type(error).__name__}, see above" if debug else describe_unexpected(error), 1
    shown = click.ClickException(message)
    shown.exit_code = code  # type: ignore[misc]  # click types it as a class variable
    return shown


def _refuse_tight_limits() -> None:
    """Refuse a limit below which libraries do not load, each with an error of its own; some of them hang.

    Raises:
        MemoryPlanError: names the limit.
    """
    limit = address_space_limit()
    if limit < _MIN_ADDRESS_SPACE:
        raise MemoryPlanError(
            f"`ulimit -v` leaves this process {limit >> 20} MiB of address space, and its libraries map up to "
            f"{_MIN_ADDRESS_SPACE >> 20} MiB, mostly not in memory; raise it, or use a control group"
        )


def _set_debug(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    ctx.meta[_DEBUG] = value


@click.command(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, expose_value=False, callback=_set_debug,
              help="Print the traceback of an error.")  # fmt: skip
@click.version_option(__version__, "-V", "--version", prog_name="volseg")
def main() -> None:
    """Membrane probability maps of electron-microscopy volumes of any size.

    \b
    First steps with your own data:
      volseg convert sections/ raw.zarr --voxel-size 50,4,4
      volseg predict raw.zarr membrane.zarr --model model.safetensors
      volseg view raw.zarr membrane.zarr
    \b
    A demo that needs no data:
      volseg demo

    Exit codes: 0 done, 1 error, 2 wrong use of options, 3 finished with failed blocks,
    or verified a map that is damaged or incomplete, 4 stopped by a signal (--resume goes on).
    """


def run() -> None:
    """The program `volseg`."""
    interrupt_once()
    try:
        main(prog_name="volseg")
    finally:
        ignore_stops()
