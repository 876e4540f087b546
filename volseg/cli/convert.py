"""`volseg convert`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import click

from volseg.cli.options import NanometresType, reading_options

if TYPE_CHECKING:
    from volseg.blocks import ZyxFloat


@click.command(short_help="Convert TIFF, HDF5, sections or Zarr to OME-Zarr.")
@click.argument("source")
@click.argument("target")
@click.option("--voxel-size", type=NanometresType(),
              help="Voxel size in nanometres; needed if SOURCE states none.")  # fmt: skip
@reading_options
@click.option("--overwrite", is_flag=True, help="Replace an existing TARGET.")
def convert(
    source: str,
    target: str,
    voxel_size: ZyxFloat | None,
    axes: str | None,
    channel: str | None,
    missing: Literal["refuse", "blank", "nearest"] | None,
    overwrite: bool,
) -> None:
    """Convert an image stack, an HDF5 dataset or another Zarr to OME-Zarr.

    SOURCE is a multi-page TIFF, a folder of TIFF, PNG or JPEG sections (in natural order), FILE.h5:DATASET (DATASET is
    optional if the file has only one), or a Zarr. TARGET becomes a sharded OME-Zarr 0.5 group of the same data type,
    which any reader of Zarr 3 opens, with the voxel size and the translation of SOURCE. It appears under its name once
    it is complete.

    \b
    Examples:
      volseg convert train-volume.tif raw.zarr --voxel-size 50,4,4
      volseg convert sections/ raw.zarr --voxel-size 30,6,6
      volseg convert xyz.zarr raw.zarr --axes x,y,z
      volseg convert sections/ raw.zarr --voxel-size 30,6,6 --missing nearest
      volseg convert sample_A.hdf:volumes/raw raw.zarr
    """
    from volseg.cli.progress import ProgressBar
    from volseg.storage import (
        ReadOptions,
        conversion_target,
        convert_stack,
        open_sections,
        parse_axes,
        target_place,
    )
    from volseg.text import counted

    path = conversion_target(source, target, overwrite=overwrite)
    options = ReadOptions(None if axes is None else parse_axes(axes), channel, missing or "refuse")
    stack = open_sections(source, options=options)
    place = target_place(source, stack.place, voxel_size)
    z, y, x = stack.shape
    with ProgressBar("section", transient=True) as bar:
        convert_stack(stack, path, place, lambda done: bar.update("convert", done, z), overwrite=overwrite)
    click.echo(f"{target}: {counted(z, 'section')} of {y} x {x}, {stack.dtype}, {place} (z, y, x)")
