"""`volseg convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from volseg.cli.options import NanometresType, count_text

if TYPE_CHECKING:
    from volseg.blocks import ZyxFloat


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--voxel-size", type=NanometresType(), required=True, help="Voxel size along z, y, x in nanometres.")
@click.option("--overwrite", is_flag=True, help="Replace a TARGET that exists.")
def convert(source: Path, target: Path, voxel_size: ZyxFloat, overwrite: bool) -> None:
    """Make an OME-Zarr volume of an image stack.

    SOURCE is a multi-page TIFF, or a folder of TIFF or PNG sections (taken in natural order). TARGET is an OME-Zarr
    0.5 group of the same type, sharded, that any reader of Zarr 3 opens. It appears under its name when it is whole.

    \b
    Examples:
      volseg convert train-volume.tif raw.zarr --voxel-size 50,4,4
      volseg convert sections/ raw.zarr --voxel-size 30,6,6
    """
    from rich.console import Console
    from rich.progress import track

    from volseg.errors import TargetError
    from volseg.storage import convert_stack, open_stack

    stack = open_stack(source)
    if target.exists() and not overwrite:
        raise TargetError(f"target {target} exists already; choose another path, or give --overwrite")
    console = Console(stderr=True)
    steps = iter(track(range(stack.shape[0]), "convert", console=console, transient=True))

    def advance(done: int) -> None:
        while next(steps, done) < done - 1:
            pass

    convert_stack(stack, target, voxel_size, advance, overwrite=overwrite)
    click.echo(f"{target}: {count_text(stack)}, voxels of {' x '.join(f'{v:g}' for v in voxel_size)} nm (z, y, x)")
