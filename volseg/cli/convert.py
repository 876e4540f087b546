"""`volseg convert`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from volseg.cli.options import NanometresType, count_text

if TYPE_CHECKING:
    from volseg.blocks import ZyxFloat


@click.command()
@click.argument("source")
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--voxel-size",
    type=NanometresType(),
    help="Voxel size along z, y, x in nanometres; needed where SOURCE states none.",
)
@click.option("--overwrite", is_flag=True, help="Replace a TARGET that exists.")
def convert(source: str, target: Path, voxel_size: ZyxFloat | None, overwrite: bool) -> None:
    """Make an OME-Zarr volume of an image stack, an HDF5 dataset or another Zarr.

    SOURCE is a multi-page TIFF, a folder of TIFF or PNG sections (taken in natural order), FILE.h5:DATASET (the
    dataset may be left out where there is one alone), or a Zarr. TARGET is an OME-Zarr 0.5 group of the same type,
    sharded, that any reader of Zarr 3 opens. It appears under its name when it is whole.

    \b
    Examples:
      volseg convert train-volume.tif raw.zarr --voxel-size 50,4,4
      volseg convert sections/ raw.zarr --voxel-size 30,6,6
      volseg convert sample_A.hdf:volumes/raw raw.zarr
    """
    from rich.console import Console
    from rich.progress import track

    from volseg.errors import ConfigError, TargetError
    from volseg.storage import convert_stack, open_sections

    stack, stated_nm = open_sections(source)
    voxel_nm = voxel_size or stated_nm
    if voxel_nm is None:
        raise ConfigError(f"{source} states no voxel size; give --voxel-size Z,Y,X in nanometres")
    if target.exists() and not overwrite:
        raise TargetError(f"target {target} exists already; choose another path, or give --overwrite")
    console = Console(stderr=True)
    steps = iter(track(range(stack.shape[0]), "convert", console=console, transient=True))

    def advance(done: int) -> None:
        while next(steps, done) < done - 1:
            pass

    convert_stack(stack, target, voxel_nm, advance, overwrite=overwrite)
    click.echo(f"{target}: {count_text(stack)}, voxels of {' x '.join(f'{v:g}' for v in voxel_nm)} nm (z, y, x)")
