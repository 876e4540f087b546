"""`volseg cluster`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from volseg.cli.cluster_options import job_options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from volseg.prediction.cluster_check import ClusterCheck, WorkerView


@click.group(short_help="Check that workers of a cluster can do the work.")
def cluster() -> None:
    """Check that workers of a cluster can do the work, before a run."""


@cluster.command()
@click.argument("name", metavar="CLUSTER")
@click.option(
    "--read", multiple=True, metavar="PATH", help="A source, mask or model that workers must read; may be repeated."
)
@click.option("--write", multiple=True, metavar="PATH", help="A target that workers must write; may be repeated.")
@job_options
@click.option("--tls", metavar="FOLDER", help="Certificates, as for volseg predict.")
@click.option("--json", "as_json", is_flag=True, help="Print what was seen as JSON on standard output.")
def check(
    name: str, as_json: bool, read: tuple[str, ...], write: tuple[str, ...], tls: str | None, **flags: Any
) -> None:
    """Start one worker, show what it sees, and end it.

    CLUSTER is slurm, lsf, pbs, sge or FILE.toml: one job is submitted, and cancelled at the end; or local; or the
    address of a scheduler, whose workers are all asked. Shown are host, cores, memory, GPU, versions of packages, and
    whether the paths can be read and written from there and are the same as here.

    Exit codes: 0 all fits, 1 something does not, 2 wrong use of options.

    \b
    Examples:
      volseg cluster check slurm --queue gpu --memory 32GB --gpus 1 --read raw.zarr --write membrane.zarr
      volseg cluster check cluster.toml --json
      volseg cluster check tcp://head:8786
    """
    from volseg.cli.output import echo_json
    from volseg.cli.progress import PredictionBar
    from volseg.config import read_cluster
    from volseg.errors import ClusterError
    from volseg.prediction.cluster_check import check_workers

    with PredictionBar() as bar:
        found = check_workers(read_cluster(name, flags), bar, read=read, write=write, tls=tls)
    if as_json:
        echo_json(asdict(found))
    else:
        for line in _lines(found):
            click.echo(line)
    if found.faults:
        more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
        raise ClusterError(f"{found.faults[0]}{more}")


def _lines(found: ClusterCheck) -> Iterator[str]:
    yield f"{found.cluster}: {'all fits' if not found.faults else 'DOES NOT FIT'}"
    for worker in found.workers:
        yield from _worker_lines(worker, found.versions)
    yield from (f"fault: {fault}" for fault in found.faults)


def _worker_lines(worker: WorkerView, here: dict[str, str]) -> Iterator[str]:
    yield f"  host       {worker.host}"
    yield f"  cores      {worker.cores}"
    yield f"  memory     {worker.memory / 1024**3:.3g} GiB free"
    gpu = f"{worker.gpu}, {worker.gpu_memory / 1024**3:.3g} GiB free" if worker.gpu else "none"
    yield f"  GPU        {gpu}"
    for name, version in worker.versions.items():
        mine = here.get(name)
        yield f"  {name:<10} {version}{'' if mine in (version, None) else f' (here {mine})'}"
    for what, paths in (("read", worker.read), ("write", worker.write)):
        for path, state in paths.items():
            yield f"  {what:<10} {path}: {state}"
