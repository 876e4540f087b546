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
@click.option("--network", required=True, metavar="NAME", help="The network that the weights are for.")
@click.option("--output", required=True, type=click.Path(path_type=Path), metavar="FILE.safetensors")
@click.option("--voxel-size", required=True, type=NanometresType(), help="Nanometres of the training data.")
@click.option("--argument", "arguments", multiple=True, type=KeyValueType(),
              help="What the network was made with; as often as needed.  [default: as published]")  # fmt: skip
@click.option("--normalization", type=click.Choice(list(NORMALIZATIONS)), default="section",
              show_default=True, help="Whose mean and standard deviation made its input.")  # fmt: skip
@click.option("--mean", type=float, help="Of the training data, for fixed.")
@click.option("--std", type=float, help="Of the training data, for fixed.")
@click.option("--dtype", type=click.Choice(["uint8", "uint16", "int16", "float32"]),
              help="Of the training data, for fixed.")  # fmt: skip
@click.option("--classes", type=NamesType(), help="The output channels, in order.  [default: (cell,) membrane]")
@click.option("--activation", type=click.Choice(["sigmoid", "softmax"]), help="[default: softmax above one class]")
@click.option("--name", help="What to call the model.  [default: as FILE]")
@click.option("--license", default="not stated", show_default=True, help="Terms of the training data.")
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
    **meaning: Any,
) -> None:
    """Make a model file of weights that PyTorch saved.

    WEIGHTS is a .pt or .pth file that holds a state dict, or a plain .safetensors file; nothing in it is run. Names
    that differ from the network's are matched in their order, if all shapes agree.

    \b
    Examples:
      volseg models import weights.pt --network unet --voxel-size 50,4,4 --output unet.safetensors
      volseg models import net.pth --network fusionnet --argument width=32 --argument depth=4 \\
          --voxel-size 30,6,6 --normalization fixed --mean 128 --std 33 --dtype uint8 --output net.safetensors
      volseg models import a.pt --network unet --argument out_channels=3 --voxel-size 40,8,8 \\
          --classes affinity_z,affinity_y,affinity_x --activation sigmoid --output a.safetensors
    """
    from volseg.models.interop.import_weights import ImportSpec, import_weights, normalization_of

    about = ImportSpec(
        network=network,
        arguments=dict(arguments),
        voxel_nm=voxel_size,
        normalization=normalization_of(normalization, mean, std, dtype),
        **meaning,
    )
    header, renamed = import_weights(weights, output, about)
    if renamed:
        click.echo(f"names differ; {renamed} tensors matched in order, by shape", err=True)
    card = header.card
    click.echo(f"{output}: {card.network}, {card.parameters / 1e6:.1f} M parameters, classes {', '.join(card.classes)}")
