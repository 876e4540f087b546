"""`volseg models`."""

from __future__ import annotations

from typing import Any

import click


@click.command()
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def models(name: str | None, as_json: bool) -> None:
    """List the networks and the packaged models, or say all of one.

    NAME is a network, a packaged model or a model file. Reach is how far from a voxel the network looks, stride the
    product of its poolings, both in voxels along z, y, x.

    \b
    Examples:
      volseg models
      volseg models fusionnet
      volseg models runs/isbi/model.safetensors
    """
    from volseg.catalogue import catalogue, one_model
    from volseg.cli.printing import echo_json

    found: dict[str, Any] = catalogue() if name is None else one_model(name)
    if as_json:
        echo_json(found)
    elif name is None:
        _print_table("network", found["networks"])
        _print_table("packaged model", found["packaged"])
        click.echo("An exact halo may be up to a stride below the reach: cores of tiles sit on the stride.")
    else:
        for key, value in found.items():
            click.echo(f"{key.replace('_', ' '):>16}  {value}")


def _print_table(title: str, rows: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    if not rows:
        click.echo(f"no {title}s")
        return
    table = Table(title, "reach", "stride", "margin", "exact halo", "parameters", box=None, pad_edge=False)
    for row in rows:
        sizes = (",".join(map(str, row[key])) for key in ("reach", "stride", "margin", "exact_halo"))
        table.add_row(row["name"], *sizes, f"{row['parameters'] / 1e6:.1f} M")
    Console().print(table)
