"""`volseg`: the group that finds its commands when they are named, and maps errors to one line."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from volseg.errors import VolsegError
from volseg.version import __version__

COMMANDS = ("convert", "train", "predict", "evaluate", "models", "view", "demo")


class OneLine(click.ClickException):
    """A VolsegError as click shows it: its message, and the exit code that its kind has."""

    def __init__(self, error: VolsegError) -> None:
        super().__init__(str(error))
        vars(self)["exit_code"] = error.exit_code


class Commands(click.Group):
    """Loads a command's module when it is asked for, so that --help loads neither torch nor Dask."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of a journey, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"volseg.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what volseg refuses on purpose becomes one line."""
        try:
            return super().invoke(ctx)
        except VolsegError as error:
            raise OneLine(error) from None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="volseg")
def main() -> None:
    """Membrane probability maps of electron-microscopy volumes of any size.

    \b
    A first journey, on your own data:
      volseg convert sections/ raw.zarr --voxel-size 50,4,4
      volseg predict raw.zarr membrane.zarr --model model.safetensors
      volseg view raw.zarr membrane.zarr
    \b
    And one that needs no data:
      volseg demo

    Exit codes: 0 done, 1 error, 2 usage, 3 finished with failed blocks.
    """
