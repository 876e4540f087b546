"""Workers as jobs of a batch system, through dask-jobqueue."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from importlib import import_module
from importlib.util import find_spec
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from volseg.cluster.batch_jobs import Jobs
from volseg.cluster.dask_cluster import BATCH_CONFIG, closed_in_order, signals_blocked
from volseg.cluster.dask_executor import DaskExecutor
from volseg.cluster.executor import SLOTS
from volseg.cluster.security import security_of
from volseg.cluster.submission import SLOT
from volseg.errors import ClusterError, ConfigError
from volseg.system import held_signals
from volseg.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from volseg.config.cluster import BatchConfig

_CLASSES = {"slurm": "SLURM", "lsf": "LSF", "pbs": "PBS", "sge": "SGE"}
_SUBMIT = {"slurm": "sbatch", "lsf": "bsub", "pbs": "qsub", "sge": "qsub"}
_PRELOAD = "volseg.cluster.ending"
_LOOK_SECONDS = 0.5
_FIRST_NOTE, _NOTE_SECONDS = 10.0, 60.0
"""A job that waits in the queue is said after so long, and then at this interval."""


def check_batch(config: BatchConfig) -> None:
    """Refuse a batch system that cannot be used from here.

    Raises:
        ConfigError: dask-jobqueue is not installed, or this machine cannot submit jobs.
    """
    if find_spec("dask_jobqueue") is None:
        raise ConfigError(f"--cluster {config} needs dask-jobqueue; install it with: pip install 'volseg[cluster]'")
    command = _SUBMIT[config.system]
    if shutil.which(command) is None:
        raise ConfigError(
            f"--cluster {config} needs {command}, which is not on the PATH; run volseg on a machine that submits jobs"
        )


def lifetime(walltime: int) -> tuple[int, int]:
    """Seconds that a worker of a job lives, and by how much they vary, so that jobs do not end all at once.

    The rest of the walltime is for the start of the worker and for its end.

    >>> lifetime(4 * 3600), lifetime(600), lifetime(60)
    ((13980, 300), (510, 30), (51, 3))
    """
    margin, stagger = min(120, walltime // 10), min(300, walltime // 20)
    return walltime - margin - stagger, stagger


def job_options(config: BatchConfig) -> dict[str, Any]:
    """Arguments of a class of dask-jobqueue."""
    directives, resources = list(config.job_extra_directives), config.resource_spec
    skip, prologue = list(config.job_directives_skip), list(config.job_script_prologue)
    worker = ["--resources", f"{SLOT}={SLOTS}", "--no-dashboard", "--preload", _PRELOAD, "--preload-nanny", _PRELOAD]
    prologue += ["export MALLOC_ARENA_MAX=1", f"export VOLSEG_NOTICE={config.notice}"]
    if config.walltime is None:
        skip += {"slurm": ["-t "], "lsf": ["-W "], "pbs": ["walltime="], "sge": ["h_rt="]}[config.system]
    else:
        seconds, stagger = lifetime(config.walltime)
        worker += ["--lifetime", f"{seconds}s", "--lifetime-stagger", f"{stagger}s"]
        # A worker that is started anew within its job has a lifetime of its own; the job's end stays.
        prologue.append(f"export VOLSEG_JOB_END=$(($(date +%s) + {seconds + stagger}))")
    if config.gpus > 1:
        prologue.append(f"export VOLSEG_WORKERS={config.gpus}")
    options: dict[str, Any] = {}
    if config.system == "slurm":
        directives += [f"--gres=gpu:{config.gpus}"] * bool(config.gpus)
    elif config.system == "lsf":
        directives += [f'-gpu "num={config.gpus}"'] * bool(config.gpus)
    elif config.system == "pbs":
        gpus = f":ngpus={config.gpus}" if config.gpus else ""
        memory = ceil(config.memory / 1024**2)
        options["resource_spec"] = resources or f"select=1:ncpus={config.cores}:mem={memory}mb{gpus}"
    else:
        if config.cores > 1 and not any(directive.startswith("-pe ") for directive in directives):
            directives.append(f"-pe smp {config.cores}")
        gpus = f",gpu={config.gpus}" if config.gpus else ""
        # Grid Engine counts h_vmem for each slot.
        options["resource_spec"] = resources or f"h_vmem={ceil(config.memory / config.cores / 1024**2)}M{gpus}"
    account = "account" if config.system in ("slurm", "pbs") else "project"
    return options | {
        "queue": config.queue,
        account: config.account,
        "walltime": None if config.walltime is None else _walltime(config),
        "cores": config.cores,
        "memory": f"{config.memory}B",
        "processes": max(1, config.gpus),
        "job_name": config.job_name,
        "job_extra_directives": directives,
        "job_directives_skip": skip,
        "job_script_prologue": prologue,
        "worker_extra_args": worker,
        "log_directory": str(log_folder(config)),
        "interface": config.interface,
        "local_directory": config.local_directory,
        "python": config.python,
    }


def _walltime(config: BatchConfig) -> str:
    """As each batch system writes it; LSF has no seconds."""
    minutes, seconds = divmod(config.walltime or 0, 60)
    if config.system == "lsf":
        minutes, seconds = minutes + bool(seconds), 0
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02}:{minutes:02}" + ("" if config.system == "lsf" else f":{seconds:02}")


def log_folder(config: BatchConfig) -> Path:
    """Folder of the workers' logs."""
    return Path(config.log_directory).expanduser().absolute()


def _make_log_folder(config: BatchConfig) -> None:
    """Make the folder of the workers' logs; without it, a batch system ends a job with no word.

    Raises:
        ConfigError: it cannot be made or written.
    """
    folder = log_folder(config)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"log_directory {folder} cannot be made ({error.strerror}); name another folder") from error
    if not os.access(folder, os.W_OK):
        raise ConfigError(f"log_directory {folder} cannot be written; name another folder")


def job_script(config: BatchConfig, scheduler: str = "tcp://SCHEDULER:PORT") -> str:
    """The script of a job."""
    module = import_module("dask_jobqueue")
    base = getattr(module, f"{_CLASSES[config.system]}Cluster").job_cls
    return str(_job_class(base, [])(scheduler, name="volseg-0", **job_options(config)).job_script())


def _job_class(base: Any, refused: list[str]) -> Any:
    """A job class of dask-jobqueue whose worker has volseg's slots and no memory limit of Dask.

    Args:
        base: the class for the batch system.
        refused: receives why a job was not accepted.
    """
    from distributed.core import Status  # noqa: PLC0415 - a serial run needs no Dask

    class WorkerJob(base):  # type: ignore[misc]  # a class of a package that is chosen at run time
        worker_process_threads = SLOTS
        worker_process_memory = "0"
        # The worker takes the shell's place, so that signals for the job reach it.
        _script_template = base._script_template.replace("%(worker_command)s", "exec %(worker_command)s")

        async def _submit_job(self, script_filename: str) -> Any:
            try:
                return await super()._submit_job(script_filename)
            except (RuntimeError, OSError) as error:
                lines = [line for line in str(error).rpartition("stderr:")[2].splitlines() if line.strip()]
                refused.append(lines[-1].strip() if lines else type(error).__name__)
                self.status = Status.failed
                raise

    WorkerJob.__name__ = base.__name__
    return WorkerJob


@contextlib.contextmanager
def batch_cluster(
    config: BatchConfig, workers: int | None, tls: str | None, note: Callable[[str], None]
) -> Iterator[DaskExecutor]:
    """Start a scheduler in this process, and workers as jobs; both end with the context.

    Args:
        config: of the jobs.
        workers: number of jobs; by default that of the config.
        tls: folder of certificates of scheduler, workers and this client.
        note: receives what is asked for and where logs lie, and what the jobs wait for.

    Raises:
        ConfigError: as `check_batch`, `workers` together with `adapt`, or a folder of logs that cannot be made.
        ClusterError: the batch system refused the jobs, or they end before their workers have joined.
    """
    import dask  # noqa: PLC0415 - a serial run needs no Dask
    from distributed import Client  # noqa: PLC0415 - likewise

    check_batch(config)
    if workers is not None and config.adapt is not None:
        raise ConfigError(
            f"--workers {workers} contradicts adapt {config.adapt[0]},{config.adapt[1]}; give one of them"
        )
    _make_log_folder(config)
    count, refused = workers or config.workers, list[str]()
    options = job_options(config) | {"security": security_of(tls, workers=True)}
    module = import_module("dask_jobqueue")
    kind = getattr(module, f"{_CLASSES[config.system]}Cluster")
    note(_describe_jobs(config, count))
    with dask.config.set(BATCH_CONFIG), closed_in_order() as stack:
        try:
            with held_signals():
                with signals_blocked():
                    cluster = kind(
                        job_cls=_job_class(kind.job_cls, refused),
                        name=f"volseg-{uuid4().hex[:6]}",
                        silence_logs=logging.CRITICAL,
                        scheduler_options={"port": 0, "dashboard": False, "dashboard_address": ":0"},
                        **options,
                    )
                stack.enter_context(cluster)
                client = stack.enter_context(Client(cluster, timeout=60))
        except (RuntimeError, ValueError, OSError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ClusterError(f"no scheduler for jobs of {config} could be started here ({reason})") from error
        if config.adapt is None:
            cluster.scale(jobs=count)
        else:
            cluster.adapt(minimum_jobs=config.adapt[0], maximum_jobs=config.adapt[1], target_duration="1ms")
        jobs = Jobs(cluster, config.system, None if config.adapt else count, refused, log_folder(config), note)
        _wait_for_first(client, jobs, note)
        yield DaskExecutor(client, f"the {config} jobs", restart_lost=jobs, patient=True)


def _describe_jobs(config: BatchConfig, count: int) -> str:
    jobs = counted(count, "job") if config.adapt is None else f"{config.adapt[0]} to {config.adapt[1]} jobs"
    parts = [f"queue {config.queue}" if config.queue else "the default queue"]
    parts += [counted(config.gpus, "GPU")] if config.gpus else ["no GPU"]
    parts += [counted(config.cores, "core"), f"{config.memory / 1024**3:.6g} GiB"]
    parts += ["the queue's walltime" if config.walltime is None else f"{_walltime(config)} of walltime"]
    return f"{jobs} of {config}, each with {', '.join(parts)}; logs of the workers: {log_folder(config)}"


def _wait_for_first(client: Any, jobs: Jobs, note: Callable[[str], None]) -> None:
    """Wait for the first worker, for as long as its job waits in the queue.

    Raises:
        ClusterError: as `Jobs`.
    """
    say_at = time.monotonic() + _FIRST_NOTE
    while not (present := len(client.scheduler_info(n_workers=-1)["workers"])):
        jobs(present)
        if time.monotonic() > say_at:
            say_at = time.monotonic() + _NOTE_SECONDS
            note(f"waiting for the first worker: {jobs.waiting_for()}")
        time.sleep(_LOOK_SECONDS)
    jobs(present)
