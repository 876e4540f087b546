"""`volseg models import`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.options import KeyValueType, NamesType, NanometresType
from volseg.registry import NORMALIZATIONS

if TYPE_CHECKING:
    from volseg.blocks import ZyxFloat


@click.command("import")
@click.argument("weights", type=click.Path(path_type=Path))
@click.option("--network", required=True, metavar="NAME", help="Network of the weights.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), metavar="FILE.safetensors", help="Model file to write."
)
@click.option(
    "--voxel-size", required=True, type=NanometresType(), help="Voxel size of the training data in nanometres."
)
@click.option("--argument", "arguments", multiple=True, type=KeyValueType(),
              help="Argument of the network; repeatable.  [default: as published]")  # fmt: skip
@click.option("--normalization", type=click.Choice(list(NORMALIZATIONS)), default="section",
              show_default=True, help="Source of the mean and standard deviation of the input.")  # fmt: skip
@click.option("--mean", type=float, metavar="NUMBER", help="Of the training data, for --normalization fixed.")
@click.option("--std", type=float, metavar="NUMBER", help="Of the training data, for --normalization fixed.")
@click.option("--dtype", type=click.Choice(["uint8", "uint16", "int16", "float32"]),
              help="Of the training data, for --normalization fixed.")  # fmt: skip
@click.option("--classes", type=NamesType(), help="Output channels, in order.  [default: (cell,) membrane]")
@click.option(
    "--activation", type=click.Choice(["sigmoid", "softmax"]), help="[default: sigmoid for one class, else softmax]"
)
@click.option("--concatenation", type=click.Choice(["skip-first", "upsampled-first"]),
              help="Of a U-Net's channels.  [default: of a known layout, else skip-first]")  # fmt: skip
@click.option("--name", metavar="NAME", help="Name of the model.  [default: that of FILE]")
@click.option(
    "--license", metavar="SPDX-ID", default="not stated", show_default=True, help="Licence of the training data."
)
def import_(
    weights: Path,
    network: str,
    output: Path,
    voxel_size: ZyxFloat,
    arguments: tuple[tuple[str, Any], ...],
    normalization: str,
    mean: float | None,
    std: float | None,
    dtype: str | None,
    concatenation: str | None,
    **card_options: Any,
) -> None:
    """Make a model file from weights that PyTorch saved.

    WEIGHTS is a .pt or .pth file with a state dict, or a plain .safetensors file; no code in it is run. The layouts of
    some public U-Nets are known. If names of tensors differ from those of the network, tensors are matched by their
    order, provided that all shapes agree, or else layer by layer, by their shapes and neighbours.

    \b
    Examples:
      volseg models import weights.pt --network unet --voxel-size 50,4,4 --output unet.safetensors
      volseg models import milesial.pth --network unet --argument in_channels=1 --voxel-size 50,4,4 \\
          --normalization fixed --mean 0 --std 255 --dtype uint8 --output unet.safetensors
      volseg models import net.pth --network fusionnet --argument width=32 --argument depth=4 \\
          --voxel-size 30,6,6 --normalization fixed --mean 128 --std 33 --dtype uint8 --output net.safetensors
      volseg models import a.pt --network unet --argument out_channels=3 --voxel-size 40,8,8 \\
          --classes affinity_z,affinity_y,affinity_x --activation sigmoid --output a.safetensors
    """
    from volseg.models.interop.import_weights import ImportSpec, import_weights, normalization_of
    from volseg.storage import local_output, refuse_overlap

    refuse_overlap("weights", str(weights), local_output(output))
    spec = ImportSpec(
        network=network,
        arguments=dict(arguments),
        voxel_nm=voxel_size,
        normalization=normalization_of(normalization, mean, std, dtype),
        upsampled_first=None if concatenation is None else concatenation == "upsampled-first",
        **card_options,
    )
    header, notes = import_weights(weights, output, spec)
    for note in notes:
        click.echo(note, err=True)
    card = header.card
    click.echo(f"{output}: {card.network}, {card.parameters / 1e6:.1f} M parameters, classes {', '.join(card.classes)}")
