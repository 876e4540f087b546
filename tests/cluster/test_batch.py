"""Jobs of batch systems: golden job scripts, refusals, and jobs that end early."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from volseg.cluster import batch, batch_jobs, check_cluster, connect
from volseg.cluster.batch import job_script
from volseg.config import read_cluster
from volseg.errors import ClusterError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytest.importorskip("dask_jobqueue")

KEYS = {
    "queue": "gpu", "account": "lab", "walltime": "4h", "cores": 8, "memory": "32GB", "gpus": 1,
    "job_script_prologue": ["module load cuda"], "interface": "ib0", "local_directory": "/scratch", "python": "python3",
}  # fmt: skip
TAIL = """
module load cuda
export MALLOC_ARENA_MAX=1
export VOLSEG_NOTICE=30
export VOLSEG_JOB_END=$(($(date +%s) + 14280))
exec python3 -m distributed.cli.dask_worker tcp://SCHEDULER:PORT --name volseg-0 --nthreads 2 --memory-limit 0 --nanny \
--death-timeout 60 --local-directory /scratch --resources slot=2 --no-dashboard --preload volseg.cluster.ending \
--preload-nanny volseg.cluster.ending --lifetime 13980s --lifetime-stagger 300s --interface ib0
"""
GOLDEN = {
    "slurm": """\
#SBATCH -J volseg
#SBATCH -e LOGS/volseg-%J.err
#SBATCH -o LOGS/volseg-%J.out
#SBATCH -p gpu
#SBATCH -A lab
#SBATCH -n 1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH -t 04:00:00
#SBATCH --gres=gpu:1""",
    "lsf": """\
#BSUB -J volseg
#BSUB -e LOGS/volseg-0-%J.err
#BSUB -o LOGS/volseg-0-%J.out
#BSUB -q gpu
#BSUB -P "lab"
#BSUB -n 8
#BSUB -R "span[hosts=1]"
#BSUB -M 34359739
#BSUB -W 04:00
#BSUB -gpu "num=1\"""",
    "pbs": """\
#PBS -N volseg
#PBS -q gpu
#PBS -A lab
#PBS -l select=1:ncpus=8:mem=32768mb:ngpus=1
#PBS -l walltime=04:00:00
#PBS -e LOGS/
#PBS -o LOGS/""",
    "sge": """\
#$ -N volseg
#$ -q gpu
#$ -P lab
#$ -l h_vmem=4096M,gpu=1
#$ -l h_rt=04:00:00
#$ -e LOGS/
#$ -o LOGS/
#$ -cwd
#$ -j y
#$ -pe smp 8""",
}
"""Job scripts as they are submitted; those of LSF, PBS and SGE were not tried on such a system."""


@pytest.mark.parametrize("system", list(GOLDEN))
def test_golden_job_script(system: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LSF_ENVDIR", "LSF_CONFDIR"):
        monkeypatch.setenv(name, str(tmp_path))
    config = read_cluster({"system": system, "log_directory": str(tmp_path / "logs"), **KEYS})
    script = job_script(config).replace(str(tmp_path / "logs"), "LOGS")
    assert script == f"#!/usr/bin/env bash\n\n{GOLDEN[system]}{TAIL}"


@pytest.mark.parametrize("system", list(GOLDEN))
def test_without_a_walltime_the_queue_decides(system: str, tmp_path: Path) -> None:
    config = read_cluster({"system": system, "memory": "2GB", "log_directory": str(tmp_path)})
    script = job_script(config).replace(str(tmp_path), "LOGS")
    assert not any(word in script for word in ("-t ", "-W ", "walltime", "h_rt", "--lifetime", "JOB_END", "gpu"))


def test_several_gpus_are_several_workers_of_one_job(tmp_path: Path) -> None:
    config = read_cluster({"system": "slurm", "memory": "64GB", "gpus": 4, "log_directory": str(tmp_path)})
    script = job_script(config)
    assert "--nworkers 4 " in script
    assert "export VOLSEG_WORKERS=4\n" in script
    assert "--gres=gpu:4\n" in script


def test_a_machine_that_cannot_submit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    config = read_cluster({"system": "lsf", "memory": "2GB"})
    with pytest.raises(ConfigError, match="--cluster lsf needs bsub, which is not on the PATH"):
        check_cluster(config)


def test_the_missing_extra_is_named_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "find_spec", lambda name: None)
    config = read_cluster({"system": "slurm", "memory": "2GB"})
    with pytest.raises(ConfigError, match=r"needs dask-jobqueue; install it with: pip install 'volseg\[cluster\]'"):
        check_cluster(config)


@pytest.fixture
def fake_pbs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Puts commands of a PBS on the PATH that do what two scripts say: qsub and qstat."""

    def install(qsub: str, qstat: str) -> None:
        for name, text in (("qsub", qsub), ("qstat", qstat), ("qdel", "exit 0")):
            path = tmp_path / "bin" / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")

    return install


def pbs(folder: Path) -> object:
    keys = {"system": "pbs", "memory": "1GB", "interface": "lo", "python": sys.executable}
    return read_cluster({**keys, "log_directory": str(folder / "logs")})


def test_a_job_that_is_refused_ends_the_run_in_one_line(fake_pbs: Callable[[str, str], None], tmp_path: Path) -> None:
    fake_pbs("echo 'qsub: Unknown queue' >&2; exit 170", "exit 0")
    with pytest.raises(ClusterError, match=r"^pbs refused the job: qsub: Unknown queue$"), connect(pbs(tmp_path), None):
        pass


def test_jobs_that_end_before_their_worker_joined_are_told_with_the_end_of_their_log(
    fake_pbs: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_jobs, "_LOOK_SECONDS", 0.1)
    log = tmp_path / "logs" / "volseg.e17"
    fake_pbs(
        f"echo 'No module named volseg' > {log}; echo 17.head", "echo 'qstat: Unknown Job Id 17.head' >&2; exit 153"
    )
    notes: list[str] = []
    with (
        pytest.raises(ClusterError, match=rf"3 jobs ended early: job 17 .*joined: No module named volseg \({log}\)"),
        connect(pbs(tmp_path), 1, note=notes.append),
    ):
        pass
    assert notes[0].startswith("1 job of pbs, each with the default queue, no GPU, 4 cores, 1 GiB")
    assert notes[0].endswith(f"logs of the workers: {tmp_path / 'logs'}")
    assert [line.endswith("it is submitted again") for line in notes[1:]] == [True, True]


def test_what_slurm_refuses_is_answered_with_what_there_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sinfo").write_text('#!/bin/sh\n[ "$3" = %R ] && printf "gpu\\nlong\\n" || echo "gpu: 8 cores"\n')
    (tmp_path / "sinfo").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lines = ("Invalid partition name", "Bad node configuration", "no")
    assert {line: batch_jobs.refusal("slurm", line) for line in lines} == {
        "Invalid partition name": "Invalid partition name; partitions here: gpu, long",
        "Bad node configuration": "Bad node configuration; nodes here have gpu: 8 cores",
        "no": "no",
    }
    assert batch_jobs.refusal("pbs", "Invalid partition name") == "Invalid partition name"


def test_a_folder_of_logs_that_cannot_be_made_is_refused(fake_pbs: Callable[[str, str], None], tmp_path: Path) -> None:
    fake_pbs("exit 0", "exit 0")
    (tmp_path / "logs").touch()
    with pytest.raises(ConfigError, match=r"^log_directory .* cannot be made \(File exists\); name another folder$"):
        connect(pbs(tmp_path), 1).__enter__()


def test_a_number_of_jobs_and_its_bounds_contradict_each_other(
    fake_pbs: Callable[[str, str], None], tmp_path: Path
) -> None:
    fake_pbs("exit 0", "exit 0")
    config = read_cluster({"system": "pbs", "memory": "1GB", "adapt": [1, 4], "log_directory": str(tmp_path)})
    with pytest.raises(ConfigError, match="--workers 2 contradicts adapt 1,4"), connect(config, 2):
        pass
