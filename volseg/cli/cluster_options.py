"""Options of the cluster, for every command that computes blocks."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from volseg.config.cluster import read_cluster

_CommandT = TypeVar("_CommandT", bound=Callable[..., Any])
_KEYS = ("queue", "account", "walltime", "memory", "cores", "gpus", "adapt")
"""Options that are keys of a `BatchConfig`."""


class AdaptType(click.ParamType[Any]):
    """Two whole numbers, MIN,MAX."""

    name = "MIN,MAX"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse the text."""
        try:
            fewest, most = (int(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r} is not two whole numbers; write MIN,MAX, such as 1,16", param, ctx)
        return fewest, most


_JOB = (
    click.option("--queue", metavar="NAME", help="Of a job: queue or partition."),
    click.option("--account", metavar="NAME", help="Of a job: account or project that pays."),
    click.option("--walltime", metavar="TIME", help="Of a job: its limit, such as 4h or 04:00:00."),
    click.option("--memory", metavar="SIZE", help="Of a job, such as 32GB."),
    click.option("--cores", type=click.IntRange(min=1), metavar="N", help="Of a job.  [default: 4]"),
    click.option("--gpus", type=click.IntRange(min=0), metavar="N",
                 help="Of a job, which has one worker for each.  [default: 0]"),
)  # fmt: skip


def job_options(command: _CommandT) -> _CommandT:
    """Declare what a job asks for, as keys of a `BatchConfig`."""
    for option in reversed(_JOB):
        command = option(command)
    return command


def cluster_options(default: str | None = "local", workers: str = "two") -> Callable[[_CommandT], _CommandT]:
    """Declare `--cluster`, `--workers`, `--tls` and the options of jobs; the command gets `cluster`, `workers`, `tls`.

    Args:
        default: cluster; None if the command chooses.
        workers: number of local worker processes by default, in words.
    """
    chosen = "" if default else "  [default: local; serial if small]"
    options = (
        click.option("--cluster", default=default, show_default=bool(default),
                     metavar="serial|local|tcp://..|tls://..|slurm|lsf|pbs|sge|FILE.toml",
                     help="This process, local worker processes, a Dask scheduler, or jobs of a batch system."
                          + chosen),
        click.option("--workers", type=click.IntRange(min=1), metavar="N",
                     help=f"Local worker processes, or jobs.  [default: {workers}; one job]"),
        click.option("--adapt", type=AdaptType(), help="Fewest and most jobs, in place of --workers."),
        *_JOB,
        click.option("--tls", metavar="FOLDER",
                     help="Certificates for --cluster tls://HOST:PORT or jobs: ca.pem, cert.pem and key.pem."),
    )  # fmt: skip

    def declare(command: _CommandT) -> _CommandT:
        @wraps(command)
        def with_cluster(**options: Any) -> Any:
            flags = {key: options.pop(key) for key in _KEYS}
            return command(**options | {"cluster": read_cluster(options["cluster"], flags)})

        declared: Any = with_cluster
        for option in reversed(options):
            declared = option(declared)
        return declared  # type: ignore[no-any-return]  # click keeps the type

    return declare
