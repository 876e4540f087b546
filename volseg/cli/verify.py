"""`volseg verify`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from volseg.cli.cluster_options import cluster_options
from volseg.cli.options import ZyxType
from volseg.cli.stop import STOPPED
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from volseg.prediction.verification.report import FaultGroup, VerifyReport

_SHOWN = 5
"""Faults of each kind that are printed."""


@click.command()
@click.argument("target")
@click.option("--deep", is_flag=True, help="Decode the voxels too, and compare them with what was computed.")
@click.option("--repair", is_flag=True, help="Compute damaged blocks again, and put back or delete what is not right.")
@click.option("--source", metavar="SOURCE", help="For --repair: the run's source, if it has moved or needs a password.")
@click.option("--model", multiple=True, metavar="MODEL",
              help="For --repair: the run's model, if it has moved; repeat it for several.")  # fmt: skip
@click.option("--mask", metavar="PATH", help="For --repair: the run's mask, if it has moved or needs a password.")
@cluster_options()
@click.option("--resume", is_flag=True, help="Go on after a verification that was stopped.")
@click.option("--seams/--no-seams", default=None,
              help="Compute places across block faces in one piece too; or do not look for seams.")  # fmt: skip
@click.option("--block", type=ZyxType(), help="Blocks of another tool's map, whose seams are looked for.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON on standard output.")
def verify(as_json: bool, **options: Any) -> None:
    """Compare a map with the marks and the record of its run.

    TARGET is that of a `predict`. Each done block must have its shards, with the bytes that were marked when they were
    written; other blocks must have none; metadata must be those of the run. Nothing is changed without --repair, which
    computes the damaged blocks again, from the run's own source and models. Of a map of another tool only seams are
    looked for, with --seams or --block.

    Exit codes: 0 sound, complete and without seams, 1 cannot be verified, 2 wrong use of options, 3 damaged, incomplete
    or seamed.

    \b
    Examples:
      volseg verify membrane.zarr
      volseg verify membrane.zarr --deep --json
      volseg verify membrane.zarr --seams
      volseg verify others.zarr --block 64,512,512
      volseg verify membrane.zarr --repair
      volseg verify membrane.zarr --repair --source /new/raw.zarr/0 --cluster tcp://head:8786
    """
    from volseg.cli.output import echo_json
    from volseg.cli.progress import VerificationBar
    from volseg.config import VerifyConfig, validate
    from volseg.prediction.verification.verify import verify as run_verification

    config = validate(VerifyConfig, options, "verify")
    try:
        with VerificationBar() as bar:
            report = run_verification(config, bar)
    except KeyboardInterrupt:
        click.echo(f"Stopped. To go on with {options['target']}, rerun the command with --resume.", err=True)
        raise SystemExit(STOPPED) from None
    if as_json:
        echo_json(report.to_json())
    else:
        click.echo("\n".join(_lines(report)))
    raise SystemExit(0 if report.sound and report.complete and not report.seamed else 3)


def _lines(report: VerifyReport) -> Iterable[str]:
    from volseg.prediction.verification.report import DAMAGE, WARNINGS
    from volseg.prediction.verification.seam_report import seam_lines

    repaired = report.repaired
    if repaired is not None:
        yield (
            f"repaired: {counted(repaired.blocks, 'block')} computed again ({repaired.equal} with the voxels that were "
            f"marked), {counted(len(repaired.metadata), 'metadata file')} put back, {repaired.deleted} deleted"
        )
        yield from (f"failed: block {number}: {reason}" for number, reason in repaired.failed.items())
    yield f"{report.target}: {_verdict(report)}"
    if report.checked or report.checked_before:
        yield _compared(report)
    yield from seam_lines(report.seams)
    yield from _fault_lines("damage", report.damaged, DAMAGE)
    yield from _fault_lines("warning", report.warnings, WARNINGS)
    if report.unmarked:
        yield f"{counted(report.unmarked, 'shard')} of blocks that are not done: left by an interruption"
    if report.lacking:
        yield f"{counted(report.lacking, 'block')} read chunks that the source's server did not have"
    if "record" in report.damaged:
        return
    if not report.complete:
        yield "finish the run: its own volseg predict command, with --resume"
    if not report.sound:
        yield "to repair it: volseg verify TARGET --repair" if repaired is None else "what is left was not repaired"


def _verdict(report: VerifyReport) -> str:
    if report.compared == "nothing":
        return "SEAMED" if report.seamed else "no seams found"
    verdict = "sound" if report.sound else "DAMAGED"
    if "record" in report.damaged:
        return f"{verdict}: without its record nothing can be compared"
    missing = report.blocks - report.done
    whole = "complete" if report.complete else f"INCOMPLETE, {missing} of {counted(report.blocks, 'block')} not done"
    whole += ", SEAMED" if report.seamed else ""
    return f"{verdict} and {whole}{'; a run is writing' if report.running else ''}"


def _compared(report: VerifyReport) -> str:
    before = f", {report.checked_before} before" if report.checked_before else ""
    empty = f" ({report.empty} empty)" if report.empty else ""
    rate = report.bytes / max(report.seconds, 1e-9) / 1e9
    decoded = f", {report.voxel_bytes / 1e9:.2f} GB of voxels" if report.voxel_bytes else ""
    return (
        f"{counted(report.checked, 'block')}{empty} compared{before}: {report.bytes / 1e9:.2f} GB{decoded} in "
        f"{report.seconds:.1f} s, {rate:.2f} GB/s"
    )


def _fault_lines(what: str, groups: Mapping[str, FaultGroup], kinds: Mapping[str, str]) -> Iterable[str]:
    for kind, group in groups.items():
        yield f"{what}: {kind}, {group.count}: {kinds[kind]}"
        for fault in group.examples[:_SHOWN]:
            block = "" if fault.block is None else f"block {fault.block}: "
            yield f"  {block}{fault.path}{f' ({fault.reason})' if fault.reason else ''}"
        if group.count > _SHOWN:
            yield f"  and {group.count - _SHOWN} more; --json names up to 100"
