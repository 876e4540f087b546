"""`volseg models`: lists networks and models; `import` and `export` are subcommands."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from volseg.blocks import format_zyx
from volseg.cli.output import echo_json, plain_table, value_text
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterator

_LABELS = {
    "flops_per_voxel": "FLOPs per voxel",
    "voxel_nm": "voxel size, nm",
    "normalization": "normalisation",
    "normalization.training": "training mean, std",
    "normalization.dtype": "training type",
    "license": "licence",
}
"""Labels of card fields whose keys are not clear by themselves, by their path in the card."""
_LARGE = ("parameters", "flops_per_voxel")
"""Card fields whose digits are grouped."""


class ModelsGroup(click.Group):
    """A group whose default subcommand is `show`: `volseg models unet`."""

    subcommands = ("import", "export")

    def with_default(self, args: list[str], ctx: click.Context) -> list[str]:
        """Insert `show` if the arguments name no subcommand."""
        names = [word for word in args if not word.startswith("-")]
        if len(names) > 1 and names[0] not in self.subcommands:
            hint = did_you_mean(names[0], self.subcommands)
            ctx.fail(
                f"there is no command {names[0]!r}{hint}; give one NAME, or choose from {', '.join(self.subcommands)}"
            )
        is_named = args[:1] and (args[0] in self.subcommands or args[0] in ctx.help_option_names)
        return args if is_named else ["show", *args]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments."""
        return super().parse_args(ctx, self.with_default(args, ctx))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the subcommands that --help lists."""
        return list(self.subcommands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        if cmd_name == "show":
            return show
        if cmd_name not in self.subcommands:
            return None
        command: click.Command = getattr(import_module(f"volseg.cli.models_{cmd_name}"), f"{cmd_name}_")
        return command


@click.group(
    cls=ModelsGroup,
    short_help="List, show, import and export models.",
    subcommand_metavar="[NAME] [--json] | COMMAND ...",
)
def models() -> None:
    """List the networks and packaged models, show one of them, or import and export models.

    NAME is a network, a packaged model or a model file. Reach is how far from a voxel the network looks, stride the
    product of its poolings, both in voxels along z, y, x. --json prints JSON.

    \b
    Examples:
      volseg models
      volseg models fusionnet
      volseg models runs/isbi/model.safetensors
      volseg models import weights.pt --network unet --voxel-size 50,4,4 --output unet.safetensors
      volseg models export unet.safetensors unet.onnx
    """


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def show(name: str | None, as_json: bool) -> None:
    """List the networks and packaged models, or show one of them.

    \b
    Examples:
      volseg models
      volseg models fusionnet
    """
    from volseg.models.catalog import list_models, model_details

    fields: dict[str, Any] = list_models() if name is None else model_details(name)
    if as_json:
        echo_json(fields)
    elif name is None:
        _print_table("network", fields["networks"])
        _print_table("packaged model", fields["packaged"])
        click.echo("An exact halo may be up to one stride below the reach, because tiles start on the stride.")
        click.echo("GFLOP/Mvoxel is the cost of a large tile without its halo; a multiply-add counts as two.")
    else:
        story = fields.pop("story", "")
        click.echo("\n".join(_card_lines(fields)) + (f"\n\n{story.rstrip()}" if story else ""))


def _card_lines(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Lines of a card: one for each field; nested tables are indented and keep the names of the run file."""
    labels = {key: _LABELS.get(prefix + key, key if prefix else key.replace("_", " ")) for key in values}
    width = max(map(len, labels.values()), default=0)
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield labels[key]
            yield from (f"  {line}" for line in _card_lines(value, f"{prefix}{key}."))
        else:
            text = f"{value:,.0f}" if prefix + key in _LARGE else value_text(value)
            yield f"{labels[key]:<{width}}  {text}"


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console

    if not rows:
        click.echo(f"no {title}s")
        return
    left = (title, "reach", "stride", "margin", "exact\nhalo")
    table = plain_table(left, ("layers", "parameters", "GFLOP/\nMvoxel"), gap=1)
    for row in rows:
        sizes = (format_zyx(row[key]) for key in ("reach", "stride", "margin", "exact_halo"))
        cost = (str(row["layers"]), f"{row['parameters'] / 1e6:.1f} M", f"{row['flops_per_voxel'] / 1e3:.0f}")
        table.add_row(row["name"], *sizes, *cost)
    Console().print(table)
