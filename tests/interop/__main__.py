"""Checks the formats against programs of others, and writes the table of docs/formats.md.

python -m tests.interop FOLDER [--page docs/formats.md]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import warnings
from pathlib import Path

from benchmarks.tables import fill_tables
from tests.interop import ours
from tests.interop.files import Check, load_checks, load_files, save
from tests.interop.table import formats_table

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "formats.md"


def install(folder: Path) -> Path:
    """Make an environment with the programs of requirements.txt, once; returns its Python.

    Raises:
        subprocess.CalledProcessError: a package cannot be installed, as without network.
    """
    python, done = folder / "bin" / "python", folder / "installed.txt"
    requirements, overrides = HERE / "requirements.txt", HERE / "overrides.txt"
    wanted = requirements.read_text() + overrides.read_text()
    if not done.exists() or done.read_text() != wanted:
        packages = ["--requirement", requirements, "--override", overrides]
        for command in (
            ["venv", "--clear", "--python", sys.executable, folder],
            ["pip", "install", "--python", python, *packages],
        ):
            uv = [sys.executable, "-m", "uv", "--quiet", *command]
            subprocess.run(uv, check=True, stderr=subprocess.PIPE, text=True)
        done.write_text(wanted)
    return python


def exchange(python: Path, folder: Path) -> tuple[list[Check], list[Check]]:
    """What the programs of others find in files of volseg, and volseg in theirs."""
    for name in ("ours", "theirs"):
        (folder / name).mkdir(parents=True)
    files, found, written = (folder / f"{name}.json" for name in ("ours", "found", "theirs"))
    save(files, ours.write_all(folder / "ours"))
    for name, arguments in (("read", [files, found]), ("write", [folder / "theirs", written])):
        subprocess.run([python, "-m", f"tests.interop.{name}_with_others", *arguments], check=True, cwd=ROOT)
    return load_checks(found), [ours.read(file) for file in load_files(written)]


def wrong(by_others: list[Check], by_volseg: list[Check]) -> list[str]:
    """A line for each volume that was read as something else, or that volseg did not read."""
    return [
        f"{check.program}: {check.file.path} of {check.file.program}: {check.error or 'not equal'} (voxels "
        f"{check.voxels}, size {check.size}, place {check.start})"
        for check in (*by_others, *by_volseg)
        if check.is_wrong or (check.error and check in by_volseg)
    ]


def run() -> int:
    """Run all checks; 1 if a volume was read as something else."""
    parser = argparse.ArgumentParser(prog="python -m tests.interop", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the environment, which is kept, and the volumes of this run")
    parser.add_argument("--page", type=Path, default=PAGE, help="with the table to write")
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    folder = chosen.folder.absolute()
    try:
        python = install(folder / "environment")
    except subprocess.CalledProcessError as error:
        sys.exit(f"the programs cannot be installed: {error.stderr.strip()}")
    number = sum(1 for _ in folder.glob("run-*"))
    by_others, by_volseg = exchange(python, folder / f"run-{number}")
    failed = wrong(by_others, by_volseg)
    counts = f"{len(by_others)} readings of files of volseg, {len(by_volseg)} of files of others, {len(failed)} wrong"
    sys.stdout.write("\n".join([*failed, counts, ""]))
    if not failed:
        table = formats_table(by_others, by_volseg)
        chosen.page.write_text(fill_tables(chosen.page.read_text(), {"formats": table}))
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(run())
