"""What a file or options ask of a batch system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from volseg.config import BatchConfig, PredictConfig, read_cluster, validate
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SLURM = 'system = "slurm"\nmemory = "32GB"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SLURM + 'que = "gpu"', r"unknown key 'que' \(did you mean 'queue'\?\); choose from system, queue, .*notice$"),
        (SLURM + 'walltime = "4:00"', "walltime: '4:00' is not a time; write 4h, 90min, 1d12h or 04:00:00"),
        (SLURM + 'walltime = "30s"', "'30s' is less than a minute"),
        (SLURM + "gpus = -1", "gpus: .*greater than or equal to 0"),
        (SLURM + "adapt = [4, 2]", "adapt 4,2 is not MIN,MAX"),
        (SLURM + "adapt = 4", r"adapt: 4 is not two whole numbers; write \[MIN, MAX\], such as \[1, 16\]"),
        (SLURM + "adapt = [1, 2, 3]", r"adapt: \[1, 2, 3\] is not two whole numbers"),
        (SLURM + "adapt = [1, 2]\nworkers = 3", "workers 3 contradicts adapt 1,2; give one of them"),
        (
            SLURM + 'job_script_prologue = "module load x"',
            r"'module load x' is not a list .*write \[\"module.*\]",
        ),
        (SLURM + 'queue = ""', "queue: .*at least 1 character"),
        ('memory = "1GB"', 'the batch system is not stated; give system = "slurm"'),
        (SLURM + 'resource_spec = "x"', "resource_spec is for pbs and sge"),
        ('system = "slurm"', "the memory of a job is not stated; give --memory 32GB, or memory in the file"),
        ('system = "slurm"\nmemory = "32"', "memory: '32' is not a size of memory"),
        ('system = "slrum"\nmemory = "1G"', r"system: .*\(did you mean 'slurm'\?\)"),
        ("system =", "is not TOML"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line_that_names_it(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"c\.toml.*{message}") as raised:
        read_cluster(str(tmp_path / "c.toml"))
    assert "\n" not in str(raised.value)


def test_options_take_the_place_of_keys_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(SLURM + 'partition = "gpu"\nwalltime = 04:00:00\ngpus = 2\n')
    read = read_cluster(path, {"queue": "short", "walltime": "90min", "memory": None, "adapt": (1, 4)})
    wanted = BatchConfig.model_validate(
        {"system": "slurm", "queue": "short", "walltime": "1h30m", "memory": "32G", "gpus": 2, "adapt": (1, 4)}
    )
    assert read == wanted
    assert (read.walltime, read.memory) == (5400, 32 << 30)


def test_a_batch_system_is_named_with_its_options_and_in_python_by_a_dict() -> None:
    by_name = read_cluster("pbs", {"memory": "900MB", "account": "lab"})
    assert by_name == read_cluster({"system": "pbs", "memory": "900MB", "project": "lab"})
    config = validate(PredictConfig, {"source": "a", "target": "b", "model": "m", "cluster": {**by_name_keys()}}, "p")
    assert isinstance(config.cluster, BatchConfig)


def by_name_keys() -> dict[str, Any]:
    return {"system": "lsf", "memory": "1GB"}


@pytest.mark.parametrize("cluster", ["local", "serial", "tcp://head:8786"])
def test_options_of_jobs_are_refused_for_other_clusters(cluster: str) -> None:
    assert read_cluster(cluster, {"queue": None}) == cluster
    with pytest.raises(ConfigError, match=f"--queue gpu needs --cluster slurm, lsf, .* not {cluster}"):
        read_cluster(cluster, {"queue": "gpu"})


def test_a_misspelt_batch_system_is_recognised_with_its_options() -> None:
    with pytest.raises(ConfigError, match=r"--memory 2GB needs --cluster .*not slrum \(did you mean 'slurm'\?\)"):
        read_cluster("slrum", {"memory": "2GB"})
