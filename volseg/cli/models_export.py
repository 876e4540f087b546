"""`volseg models export`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click


@click.command("export", short_help="Export a model to ONNX or bioimage.io.")
@click.argument("model")
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--format", "export_format", type=click.Choice(["onnx", "bioimageio"]),
              help="An ONNX file, or a bioimage.io package.  [default: by the suffix, .onnx or .zip]")  # fmt: skip
@click.option("--license", "license_id", metavar="SPDX-ID", help="Licence to state.  [default: that of MODEL]")
@click.option("--author", "authors", multiple=True, metavar="NAME", help="Author of the model; repeatable.")
def export_(
    model: str,
    output: Path,
    export_format: Literal["onnx", "bioimageio"] | None,
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
    from volseg.models import resolve_model
    from volseg.models.interop.convert import export_model
    from volseg.storage import local_output, refuse_overlap

    refuse_overlap("model", str(resolve_model(model)), local_output(output))
    result = export_model(model, output, export_format=export_format, license_id=license_id, authors=authors)
    where = f" in all but {result.exempt_fraction:.1%} of the voxels" if result.exempt_fraction else ""
    for tool, difference in result.max_differences.items():
        click.echo(f"{output}: {tool} differs from the network by at most {difference:.1e}{where}")
