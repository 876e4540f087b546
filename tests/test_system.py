"""Memory limits of control groups of both versions, on a fake tree."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from volseg import system
from volseg.system import (
    UNLIMITED,
    available_cpus,
    free_in_control_groups,
    out_of_memory_kills,
)

if TYPE_CHECKING:
    from pathlib import Path

NO_LIMIT = 9223372036854771712
"""What version 1 states for no limit."""
V1, V2 = ("memory/", "limit_in_bytes", "usage_in_bytes"), ("", "max", "current")


class Tree:
    """A fake /proc/self/cgroup and /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def name(self, *lines: str) -> None:
        (self.root / "proc").write_text("".join(f"{line}\n" for line in lines))

    def add(self, version: tuple[str, str, str], group: str, limit: int | str, used: int, stat: str = "") -> None:
        mount, limit_name, used_name = version
        folder = self.root / "sys" / mount / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, value in ((limit_name, limit), (used_name, used), ("stat", stat)):
            (folder / f"memory.{name}").write_text(f"{value}\n")


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    monkeypatch.setattr(system, "_CGROUPS", tmp_path / "proc")
    monkeypatch.setattr(system, "_MOUNT", tmp_path / "sys")
    return Tree(tmp_path)


def test_without_control_groups_nothing_limits(tree: Tree) -> None:
    assert free_in_control_groups() == UNLIMITED
    tree.name("0::/")
    assert free_in_control_groups() == UNLIMITED


@pytest.mark.parametrize(("version", "line"), [(V1, "5:hugetlb,memory:/slurm/job/task"), (V2, "0::/slurm/job/task")])
def test_the_tightest_group_above_a_process_counts(tree: Tree, version: tuple[str, str, str], line: str) -> None:
    tree.name("9:cpu,cpuacct:/slurm", line)
    none = "max" if version is V2 else NO_LIMIT
    tree.add(version, "", none, 10**12)
    tree.add(version, "slurm/job/task", none, 100)
    assert free_in_control_groups() == UNLIMITED
    tree.add(version, "slurm", 90_000, 20_000)
    assert free_in_control_groups() == 70_000
    tree.add(version, "slurm/job", 50_000, 10_000)
    assert free_in_control_groups() == 40_000
    tree.add(version, "slurm/other", 1, 1)
    assert free_in_control_groups() == 40_000


def test_a_container_sees_its_own_group_at_the_root(tree: Tree) -> None:
    tree.name("4:memory:/docker/0123abcd", "0::/")
    tree.add(V1, "", 4096, 1024)
    assert free_in_control_groups() == 3072


@pytest.mark.parametrize(
    ("version", "line", "stat"),
    [
        (V1, "4:memory:/", "inactive_file 7\ntotal_inactive_file 300"),
        (V2, "0::/", "file 500\ninactive_file 300"),
    ],
)
def test_files_that_were_read_do_not_count_as_used(
    tree: Tree, version: tuple[str, str, str], line: str, stat: str
) -> None:
    tree.name(line)
    tree.add(version, "", 1000, 900, stat)
    assert free_in_control_groups() == 400
    tree.add(version, "", 1000, 1200)
    assert free_in_control_groups() == 0


def test_the_groups_of_another_controller_are_no_limit(tree: Tree) -> None:
    tree.name("4:cpuset:/a", "1:name=systemd:/a")
    tree.add(V1, "a", 10, 5)
    assert free_in_control_groups() == UNLIMITED


@pytest.mark.parametrize(
    ("line", "file", "content"),
    [
        ("4:memory:/job", "memory/job/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
        ("0::/job", "job/memory.events", "low 0\nhigh 7\nmax 9\noom 4\noom_kill 3\noom_group_kill 0\n"),
        ("4:memory:/docker/0123", "memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 3\n"),
    ],
)
def test_kills_for_memory_are_counted(tree: Tree, line: str, file: str, content: str) -> None:
    assert out_of_memory_kills() is None
    tree.name("9:cpu:/job", line)
    assert out_of_memory_kills() is None
    events = tree.root / "sys" / file
    events.parent.mkdir(parents=True)
    events.write_text(content)
    assert out_of_memory_kills() == 3
    events.write_text("oom_kill_disable 0\nunder_oom 0\n")  # before Linux 4.13
    assert out_of_memory_kills() is None


LIMITED = """
import resource, psutil, sys
from volseg.system import free_of_own_limits, UNLIMITED
assert free_of_own_limits() == UNLIMITED
for name in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
    before, hard = resource.getrlimit(name)
    used = psutil.Process().memory_info()
    resource.setrlimit(name, ((used.vms if name == resource.RLIMIT_AS else used.data) + (300 << 20), hard))
    assert 280 << 20 < free_of_own_limits() < 301 << 20, free_of_own_limits()
    resource.setrlimit(name, (before, hard))
"""


def test_the_own_limits_of_a_process_leave_what_they_say() -> None:
    subprocess.run([sys.executable, "-c", LIMITED], check=True)


def test_there_is_a_core() -> None:
    assert len(available_cpus()) >= 1


@pytest.mark.parametrize(
    ("variables", "limit"),
    [
        ({}, UNLIMITED),
        ({"SLURM_MEM_PER_NODE": "16000"}, 16000 << 20),
        ({"SLURM_MEM_PER_CPU": "1000", "SLURM_CPUS_ON_NODE": "4"}, 4000 << 20),
        ({"SLURM_MEM_PER_NODE": "0"}, UNLIMITED),
    ],
)
def test_memory_that_slurm_states_limits_a_job(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], limit: int
) -> None:
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    free = system.free_in_job()
    assert free == limit if limit == UNLIMITED else limit - (8 << 30) < free < limit
    tree.name("0::/job")
    tree.add(V2, "job", 1000, 400)
    assert system.free_in_job() == 600


def test_a_job_limits_the_cores_and_names_its_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert len(available_cpus()) == 1
    for name, value in {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_PROCID": "3"}.items():
        monkeypatch.setenv(name, value)
    assert system.batch_job() == ("7", "7.0.3")
