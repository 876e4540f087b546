"""`volseg pyramid`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.cluster_options import cluster_options
from volseg.cli.options import LevelsType
from volseg.cli.stop import STOPPED
from volseg.text import counted

if TYPE_CHECKING:
    from volseg.conversion.pyramid import PyramidSummary


@click.command(short_help="Add coarser levels to an OME-Zarr, for viewers.")
@click.argument("target")
@click.option("--levels", type=LevelsType(), metavar="auto|N", default="auto", show_default=True,
              help="Number of coarser levels. auto: down to 512 voxels.")  # fmt: skip
@click.option("--labels", is_flag=True,
              help="Take the most frequent voxel, not the mean.  [default: by type and metadata]")  # fmt: skip
@click.option("--missing-chunks", type=click.Choice(["fill", "refuse"]),
              help="For chunks that TARGET lacks.  [default: fill]")  # fmt: skip
@cluster_options(default=None)
@click.option("--resume", is_flag=True, help="Finish levels, and make those blocks again that lost files.")
@click.option("--check", is_flag=True, help="With --resume: read all files of the levels for changes.")
@click.option("--overwrite", is_flag=True, help="Replace the coarser levels of TARGET.")
@click.option("--dry-run", is_flag=True, help="Print what would be made, and exit.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary or the plan as JSON on standard output.")
def pyramid(dry_run: bool, as_json: bool, **options: Any) -> None:
    """Add coarser levels to an OME-Zarr, so that viewers open it at any size.

    TARGET is a local OME-Zarr 0.4 or 0.5 image of volumes, of volseg or any other program, with channels or times
    or without. Axes with the smallest voxels are halved first, until voxels are nearly cubic. Grey values become
    means; labels, which are integers of 32 and 64 bits, masks and groups that say so, the most frequent of them.

    The new levels lie beside the others, and TARGET lists them once they are complete; after Ctrl-C, --resume finishes
    them. --resume on complete levels looks for lost files and makes these again.

    \b
    Examples:
      volseg pyramid membrane.zarr
      volseg pyramid labels.zarr --labels --levels 4
      volseg pyramid membrane.zarr --resume --check
    """
    from volseg.cli.output import echo_json
    from volseg.cli.progress import PyramidBar
    from volseg.config import PyramidConfig, validate
    from volseg.conversion.pyramid import execute_pyramid, summary_of
    from volseg.conversion.pyramid_prepare import prepare_pyramid

    spec = prepare_pyramid(validate(PyramidConfig, options, "pyramid"))
    if dry_run:
        plan = asdict(summary_of(spec)) | {"cluster": str(spec.cluster), "notes": spec.notes}
        names = ("target", "levels", "shapes", "method", "place", "blocks", "chunks", "chunks_absent")
        fields = {name: plan[name] for name in (*names, "cluster", "notes")}
        if as_json:
            echo_json(fields)
        else:
            _print_plan(fields)
        return
    try:
        with PyramidBar() as bar:
            done = execute_pyramid(spec, bar)
    except KeyboardInterrupt:
        click.echo(f"Stopped. To finish the levels of {options['target']}, rerun with --resume.", err=True)
        raise SystemExit(STOPPED) from None
    if as_json:
        echo_json(asdict(done))
    else:
        _print_summary(done)
    for number, reason in done.failed.items():
        click.echo(f"failed: block {number}: {reason}", err=True)
    if done.failed:
        click.echo(f"{counted(len(done.failed), 'block')} failed; fix the cause, then rerun with --resume", err=True)
    raise SystemExit(0 if done.complete else 3)


def _print_plan(fields: dict[str, Any]) -> None:
    from volseg.cli.output import value_text

    for name, value in fields.items():
        if value not in (None, ()):
            click.echo(f"{name.replace('_', ' '):>17}  {value_text(value)}")


def _print_summary(done: PyramidSummary) -> None:
    if not done.levels:
        click.echo(f"{done.target} has at most 512 voxels along each axis, so viewers need no level; --levels N adds N")
        return
    added = f"{done.target}: {counted(len(done.levels), 'coarser level')} ({', '.join(done.levels)}), {done.method}"
    if not done.done and not done.failed:
        click.echo(f"{added}; all {counted(done.blocks, 'block')} were done before")
    elif done.complete:
        rate = done.voxels / max(done.seconds, 1e-9) / 1e6
        click.echo(f"{added}; {counted(done.blocks, 'block')}, {done.seconds:.1f} s, {rate:.1f} Mvoxel/s")
    else:
        click.echo(f"{added}: {done.already_done + done.done} of {counted(done.blocks, 'block')}; not complete")
