"""`volseg convert`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.cluster_options import cluster_options
from volseg.cli.options import LevelsType, NanometresType, RangeType, ZyxType, reading_options
from volseg.cli.stop import STOPPED
from volseg.text import counted

if TYPE_CHECKING:
    from volseg.conversion.prepare import ConversionSpec
    from volseg.conversion.run import Conversion

_TYPES = ("uint8", "uint16", "uint32", "uint64", "int16", "int32", "int64", "float32", "bool")


@click.command(short_help="Copy volumes of any format to OME-Zarr, and to other formats.")
@click.argument("source")
@click.argument("target")
@click.option("--voxel-size", type=NanometresType(),
              help="Voxel size in nanometres; needed if SOURCE states none.")  # fmt: skip
@click.option("--scale-level", type=click.IntRange(min=0), metavar="N",
              help="Read this level of an OME-Zarr SOURCE.  [default: 0]")  # fmt: skip
@reading_options
@click.option("--missing-chunks", type=click.Choice(["fill", "refuse"]),
              help="For chunks that a Zarr lacks.  [default: fill; over http, exit code 3]")  # fmt: skip
@click.option("--roi", metavar="z0:z1,y0:y1,x0:x1", help="Copy this region only; its place stays that in SOURCE.")
@click.option("--resample", type=NanometresType(), metavar="Z,Y,X",
              help="Voxel size of TARGET in nanometres: means of larger voxels, straight lines between smaller ones; "
                   "of labels the most frequent, the nearest.  [default: that of SOURCE]")  # fmt: skip
@click.option("--dtype", type=click.Choice(_TYPES),
              help="Type of TARGET; grey values are scaled.  [default: that of SOURCE]")  # fmt: skip
@click.option("--range", "range_", type=RangeType(), metavar="LOW,HIGH",
              help="For --dtype: values that become its smallest and largest.  [default: those of SOURCE's type]",
              )  # fmt: skip
@click.option("--format", metavar="NAME",
              help="ome-zarr, precomputed, n5, hdf5, tiff or webknossos.  [default: by TARGET's name]")  # fmt: skip
@click.option("--chunk", type=ZyxType(), help="Voxels that viewers fetch at once.  [default: about 64^3]")
@click.option("--shard", type=ZyxType(), help="Voxels of one file of TARGET.  [default: two chunks of 1024 x 1024]")
@click.option("--levels", type=LevelsType(), metavar="auto|N", default="auto", show_default=True,
              help="Coarser levels of an OME-Zarr, for viewers. auto: down to 512 voxels; 0: none.")  # fmt: skip
@click.option("--no-shards", is_flag=True, help="One file for each chunk, for readers that know no shards.")
@cluster_options(default=None)
@click.option("--resume", is_flag=True, help="Finish a conversion that was stopped; start one if there is none.")
@click.option("--overwrite", is_flag=True, help="Replace an existing TARGET.")
@click.option("--dry-run", is_flag=True, help="Print what would be read and written, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary or the plan as JSON on standard output.")
def convert(dry_run: bool, as_json: bool, range_: tuple[float, float] | None, **options: Any) -> None:
    """Copy a volume of any format to OME-Zarr, or to another format.

    SOURCE is a multi-page TIFF, a folder of TIFF, PNG or JPEG sections (in natural order), FILE.h5:DATASET (DATASET is
    optional if the file has only one), or a Zarr: grey values, labels or a mask. TARGET becomes a sharded OME-Zarr 0.5
    group of the same data type, which any reader of Zarr 3 opens, with the voxel size and the translation of SOURCE;
    or what its name says: NAME.n5, NAME.precomputed, FILE.h5:DATASET, NAME.tif (ImageJ), NAME.ome.tif.

    Workers copy blocks, and read back what they wrote. TARGET appears under its name once it is complete; after Ctrl-C,
    --resume finishes it.

    \b
    Examples:
      volseg convert train-volume.tif raw.zarr --voxel-size 50,4,4
      volseg convert sections/ raw.zarr --voxel-size 30,6,6 --missing nearest
      volseg convert xyz.zarr raw.zarr --axes x,y,z
      volseg convert sample_A.hdf:volumes/raw raw.zarr
      volseg convert raw.zarr raw8.zarr --dtype uint8 --range 2000,42000
      volseg convert raw.zarr corner.ome.tif --roi 0:16,:,:
      volseg convert raw.zarr raw-8nm.zarr --resample 40,8,8
      volseg convert raw.zarr raw.precomputed --cluster tcp://head:8786
    """
    from volseg.cli.output import echo_json
    from volseg.cli.progress import ConversionBar
    from volseg.config import ConvertConfig, validate
    from volseg.conversion.prepare import prepare
    from volseg.conversion.run import execute

    spec, recorded = prepare(validate(ConvertConfig, options | {"range": range_}, "convert"))
    if dry_run:
        _print_plan(spec, as_json=as_json)
        return
    try:
        with ConversionBar() as bar:
            done = execute(spec, recorded, bar)
    except KeyboardInterrupt:
        from volseg.storage.unfinished import unfinished

        if unfinished(spec.target) is None:  # no block was done
            raise
        click.echo(
            f"Stopped. To finish {options['target']}, rerun the command with --resume (and without --overwrite).",
            err=True,
        )
        raise SystemExit(STOPPED) from None
    if as_json:
        echo_json(asdict(done))
    else:
        _print_summary(done)
    _print_warnings(done)
    raise SystemExit(0 if done.complete else 3)


def _print_plan(spec: ConversionSpec, *, as_json: bool) -> None:
    from math import prod

    import numpy as np

    from volseg.cli.output import echo_json, value_text

    output, item = spec.output, np.dtype(spec.output.dtype).itemsize
    fields = {
        "target": str(spec.target),
        "format": output.format,
        "shape": output.shape,
        "dtype": output.dtype,
        "scaling": str(spec.rescale),
        "place": str(output.place),
        "chunk": output.chunk,
        "shard": output.shard,
        "block": output.block,
        "blocks": output.grid.count,
        "bytes_of_voxels": prod(output.shape) * item,
        "bytes_of_a_block": prod(output.grid.largest_box.shape) * item,
        "cluster": str(spec.cluster),
        "notes": spec.notes,
    }
    if as_json:
        echo_json(fields)
        return
    for name, value in fields.items():
        if value not in (None, ()):
            click.echo(f"{name.replace('_', ' '):>17}  {value_text(value)}")


def _print_summary(done: Conversion) -> None:
    from volseg.cli.output import echo_repeats

    z, y, x = done.shape
    volume = f"{done.target}: {counted(z, 'section')} of {y} x {x}, {done.dtype}, {done.place} (z, y, x)"
    if not done.done and not done.failed:
        click.echo(f"{volume}; all {counted(done.blocks, 'block')} were done before")
    elif done.complete:
        rate = done.voxels / max(done.seconds, 1e-9) / 1e6
        before = f", {done.already_done} done before" if done.already_done else ""
        click.echo(f"{volume}; {counted(done.blocks, 'block')}{before}, {done.seconds:.1f} s, {rate:.1f} Mvoxel/s")
    else:
        click.echo(f"{volume}: {done.already_done + done.done} of {counted(done.blocks, 'block')}; it is not complete")
    echo_repeats(done.repeats)


def _print_warnings(done: Conversion) -> None:
    for number, reason in done.failed.items():
        click.echo(f"failed: block {number}: {reason}", err=True)
    if done.failed:
        click.echo(f"{counted(len(done.failed), 'block')} failed; fix the cause, then rerun with --resume", err=True)
    if done.clipped:
        share = done.clipped / max(done.voxels, 1)
        voxels = f"{counted(done.clipped, 'voxel')} ({share:.2%})"
        click.echo(f"Warning: {voxels} lay outside of --range, and got its nearest end: {done.scaling}", err=True)
    if done.unexplained:
        click.echo(
            f"Warning: {counted(done.unexplained, 'block')} read chunks that the server does not have, and it does not "
            "list what it has. --resume reads these blocks again; --resume --missing-chunks fill accepts them",
            err=True,
        )
