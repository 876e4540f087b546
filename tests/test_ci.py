"""The script of continuous integration: what it installs for marked tests, and that it goes on without it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = ("bash", "dirname", "timeout")


def outcome(folder: Path, installs: bool) -> list[str]:
    """What the script calls, in its order, on a machine without Chromium, Slurm and moto."""
    programs, calls = folder / "bin", folder / "calls"
    programs.mkdir()
    for name in TOOLS:
        (programs / name).symlink_to(shutil.which(name) or pytest.skip(f"needs {name}"))
    scripts = {
        "id": "echo 0",
        "make": f'echo "make $* ${{VOLSEG_MOTO:-without moto}}" >> {calls}',
        "apt-get": f'echo "apt-get $*" >> {calls}; {"exit 0" if installs else "exit 100"}',
        "python3": f'echo "python3 $*" >> {calls}; exit {0 if installs else 1}',
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!{shutil.which('bash')}\n{script}\n")
        (programs / name).chmod(0o755)
    pip = folder / ".ci-tools" / "moto" / "bin"
    pip.mkdir(parents=True)
    (pip / "python").write_text(f'#!{shutil.which("bash")}\necho "pip $*" >> {calls}\n')
    (pip / "python").chmod(0o755)
    (folder / ".ci").mkdir()
    shutil.copy2(ROOT / ".ci" / "run", folder / ".ci" / "run")
    done = subprocess.run(
        [str(programs / "bash"), str(folder / ".ci" / "run")],
        env={"PATH": str(programs)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert ("its tests will skip" in done.stdout, "S3 will skip" in done.stdout) == (not installs, not installs)
    return calls.read_text().splitlines()


def test_checks_and_tests_run_although_nothing_can_be_installed(tmp_path: Path) -> None:
    assert outcome(tmp_path, installs=False)[-2:] == ["make check without moto", "make test without moto"]


def test_slurm_and_moto_are_installed_for_the_tests_that_need_them(tmp_path: Path) -> None:
    calls = outcome(tmp_path, installs=True)
    assert any("slurmctld slurmd slurm-client munge" in call for call in calls)
    assert any("moto[s3,server]==" in call for call in calls)
    assert calls[-1] == f"make test {tmp_path}/.ci-tools/moto/bin/moto_server"
