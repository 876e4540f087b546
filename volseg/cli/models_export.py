"""`volseg models export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("export")
@click.argument("model")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["onnx", "bioimageio"]),
              help="An ONNX file, or a bioimage.io package.  [default: as OUTPUT ends: .onnx or .zip]")  # fmt: skip
@click.option("--license", "license_id", metavar="SPDX-ID", help="Terms to state.  [default: those in MODEL]")
@click.option("--author", "authors", multiple=True, metavar="NAME", help="Who made it; as often as needed.")
def export_(
    model: str,
    output: Path,
    form: Literal["onnx", "bioimageio"] | None,
    license_id: str | None,
    authors: tuple[str, ...],
) -> None:
    """Write a model for other tools, run it there, and compare.

    MODEL is a model file or the name of a packaged model. OUTPUT becomes an ONNX file, which takes normalised grey
    values and makes probabilities, or a bioimage.io package, which normalises too. It is there only if it makes what
    the network makes. Needs: pip install 'volseg[export]'.

    \b
    Examples:
      volseg models export model.safetensors model.onnx
      volseg models export model.safetensors model.zip --license CC-BY-4.0 --author "A. Author"
    """
    from volseg.models.interop.convert import export_model

    exported = export_model(model, output, form=form, license_id=license_id, authors=authors)
    where = f" in all but {exported.beyond:.1%} of the voxels" if exported.beyond else ""
    for tool, difference in exported.differences.items():
        click.echo(f"{output}: {tool} differs from the network by at most {difference:.1e}{where}")
