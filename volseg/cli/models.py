"""`volseg models`: what there is; importing and exporting are commands of their own."""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

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
"""How keys are called that would not say enough as they are, by their place in the card."""
_LARGE = ("parameters", "flops_per_voxel")
"""Numbers whose digits need grouping."""


class Models(click.Group):
    """A group whose words are a command's, or else what `show` takes: `volseg models unet`."""

    exchanges = ("import", "export")

    def with_command(self, words: list[str], ctx: click.Context) -> list[str]:
        """The words, with the command that they leave out."""
        named = words[:1] and (words[0] in self.exchanges or words[0] in ctx.help_option_names)
        return words if named else ["show", *words]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the words."""
        return super().parse_args(ctx, self.with_command(args, ctx))

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Those that --help lists."""
        return list(self.exchanges)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name, loaded when it is asked for."""
        if cmd_name == "show":
            return show
        if cmd_name not in self.exchanges:
            return None
        command: click.Command = getattr(import_module(f"volseg.cli.models_{cmd_name}"), f"{cmd_name}_")
        return command


@click.group(cls=Models, subcommand_metavar="[NAME] [--json] | COMMAND ...")
def models() -> None:
    """List the networks and the packaged models, say all of one, or exchange models with other tools.

    NAME is a network, a packaged model or a model file. Reach is how far from a voxel the network looks, stride the
    product of its poolings, both in voxels along z, y, x. --json prints them as JSON.

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
    """List the networks and the packaged models, or say all of one.

    \b
    Examples:
      volseg models
      volseg models fusionnet
    """
    from volseg.cli.output import echo_json
    from volseg.models.catalog import catalogue, one_model

    found: dict[str, Any] = catalogue() if name is None else one_model(name)
    if as_json:
        echo_json(found)
    elif name is None:
        _print_table("network", found["networks"])
        _print_table("packaged model", found["packaged"])
        click.echo("An exact halo may be up to a stride below the reach: cores of tiles sit on the stride.")
        click.echo("GFLOP/Mvoxel is the cost of a large tile without its halo; a multiply-add counts as two.")
    else:
        story = found.pop("story", "")
        click.echo("\n".join(card_lines(found)) + (f"\n\n{story.rstrip()}" if story else ""))


def card_lines(values: dict[str, Any], within: str = "") -> Iterator[str]:
    """A card for people: one line a fact; what is nested is indented, and keeps the names that run files give it."""
    labels = {key: _LABELS.get(within + key, key if within else key.replace("_", " ")) for key in values}
    width = max(map(len, labels.values()), default=0)
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield labels[key]
            yield from (f"  {line}" for line in card_lines(value, f"{within}{key}."))
        else:
            shown = f"{value:,.0f}" if within + key in _LARGE else _text(value)
            yield f"{labels[key]:<{width}}  {shown}"


def _text(value: Any) -> str:
    """A value as people type it; a file's own words cannot steer the terminal."""
    if isinstance(value, dict) or value is None:
        return "none"
    if isinstance(value, list) and not any(isinstance(part, list | dict) for part in value):
        return (", " if any(isinstance(part, str) for part in value) else ",").join(map(_text, value))
    if isinstance(value, float):
        return f"{value:.8g}"
    text = value if isinstance(value, str) else json.dumps(value)
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        click.echo(f"no {title}s")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in (title, "reach", "stride", "margin", "exact\nhalo"):
        table.add_column(heading, no_wrap=True)
    for heading in ("layers", "parameters", "GFLOP/\nMvoxel"):
        table.add_column(heading, no_wrap=True, justify="right")
    for row in rows:
        sizes = (",".join(map(str, row[key])) for key in ("reach", "stride", "margin", "exact_halo"))
        cost = (str(row["layers"]), f"{row['parameters'] / 1e6:.1f} M", f"{row['flops_per_voxel'] / 1e3:.0f}")
        table.add_row(row["name"], *sizes, *cost)
    Console().print(table)
