"""`volseg convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from volseg.cli.options import NanometresType

if TYPE_CHECKING:
    from volseg.blocks import ZyxFloat


@click.command(short_help="Convert TIFF, HDF5, sections or Zarr to OME-Zarr.")
@click.argument("source")
@click.argument("target")
@click.option("--voxel-size", type=NanometresType(),
              help="Voxel size along z, y, x in nanometres; needed if SOURCE states none.")  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace an existing TARGET.")
def convert(source: str, target: str, voxel_size: ZyxFloat | None, overwrite: bool) -> None:
    """Convert an image stack, an HDF5 dataset or another Zarr to OME-Zarr.

    SOURCE is a multi-page TIFF, a folder of TIFF or PNG sections (in natural order), FILE.h5:DATASET (DATASET is
    optional if the file has only one), or a Zarr. TARGET becomes a sharded OME-Zarr 0.5 group of the same data type,
    which any reader of Zarr 3 opens. It appears under its name once it is complete.

    \b
    Examples:
      volseg convert train-volume.tif raw.zarr --voxel-size 50,4,4
      volseg convert sections/ raw.zarr --voxel-size 30,6,6
      volseg convert sample_A.hdf:volumes/raw raw.zarr
    """
    from volseg.cli.progress import ProgressBar
    from volseg.errors import ConfigError
    from volseg.storage import conversion_target, convert_stack, open_sections
    from volseg.text import counted

    path = conversion_target(source, target, overwrite=overwrite)
    stack, stated_nm = open_sections(source)
    voxel_nm = voxel_size or stated_nm
    if voxel_nm is None:
        raise ConfigError(f"{source} states no voxel size; give --voxel-size Z,Y,X in nanometres")
    z, y, x = stack.shape
    with ProgressBar("section", transient=True) as bar:
        convert_stack(stack, path, voxel_nm, lambda done: bar.update("convert", done, z), overwrite=overwrite)
    size = " x ".join(f"{v:g}" for v in voxel_nm)
    click.echo(f"{target}: {counted(z, 'section')} of {y} x {x}, {stack.dtype}, voxels of {size} nm (z, y, x)")
