"""`volseg models export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("export")
@click.argument("model")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["onnx", "bioimageio"]),
              help="An ONNX file, or a bioimage.io package.  [default: by the suffix, .onnx or .zip]")  # fmt: skip
@click.option("--license", "license_id", metavar="SPDX-ID", help="Licence to state.  [default: that of MODEL]")
@click.option("--author", "authors", multiple=True, metavar="NAME", help="Author of the model; repeatable.")
def export_(
    model: str,
    output: Path,
    form: Literal["onnx", "bioimageio"] | None,
    license_id: str | None,
    authors: tuple[str, ...],
) -> None:
    """Export a model to ONNX or bioimage.io, and compare the result with the network.

    MODEL is a model file or the name of a packaged model. OUTPUT becomes an ONNX file from normalised grey values to
    probabilities, or a bioimage.io package, which also normalises. It is written only if its output agrees with that of
    the network. Needs: pip install 'volseg[export]'.

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
