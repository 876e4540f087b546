"""Dockerfiles: their instructions, and the run of their steps in plain Debian roots, where no container engine is.

    debootstrap --variant=minbase --include=python3-venv,ca-certificates bookworm /tmp/plain
    python -m tests.containers.dockerfile docker/Dockerfile /tmp/plain /tmp/stages --carry /etc/resolv.conf

Each stage is a copy of the plain root, in which RUN is run by chroot; the last one then starts as the image does, by
its USER. A proof of the steps, not an image. Needs root.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Step:
    """An instruction and what follows it, continued lines joined."""

    word: str
    rest: str


def read_steps(path: Path) -> list[Step]:
    """Instructions of a Dockerfile in their order, without comments."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [Step(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def kept_in_context() -> set[str]:
    """Files and folders that .dockerignore leaves in the context."""
    return {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}


@dataclass
class Stage:
    """A root under work, with the variables, user and folder of the next step."""

    root: Path
    variables: dict[str, str] = field(default_factory=lambda: {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"})
    user: str = "0:0"
    folder: str = "/"

    def run(self, words: list[str]) -> None:
        """Run words in the root.

        Raises:
            CalledProcessError: they fail.
        """
        script = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        variables = [f"{name}={value}" for name, value in self.variables.items()]
        start = ["chroot", f"--userspec={self.user}", str(self.root), "/usr/bin/env", "-i", *variables]
        subprocess.run([*start, "/bin/sh", "-c", script], check=True)

    def copy(self, words: list[str], roots: dict[str, Path]) -> None:
        """Do a COPY: of files from the context, or of a folder from another stage."""
        from_stage = words[0].startswith("--from=")
        source = roots[words.pop(0).partition("=")[2]] if from_stage else ROOT
        *names, target = words
        if not from_stage:
            assert set(names) <= kept_in_context(), f"{names} are not in the context"
        to = self.root / (self.folder + "/" + target if target.startswith(".") else target).lstrip("/")
        for name in names:
            origin = source / name.lstrip("/")
            if origin.is_dir():
                ignored = shutil.ignore_patterns("__pycache__", "*.py[cod]")
                shutil.copytree(origin, to, symlinks=True, ignore=None if from_stage else ignored, dirs_exist_ok=True)
            else:
                to.mkdir(parents=True, exist_ok=True)
                shutil.copy2(origin, to)


class Build:
    """The steps of a Dockerfile, each a method of its name, in copies of a plain root."""

    def __init__(self, plain: Path, work: Path, carried: list[str], arguments: dict[str, str]) -> None:
        self._plain, self._work, self._carried, self._arguments = plain, work, carried, arguments
        self._roots: dict[str, Path] = {}
        self._values: dict[str, str] = {}
        self._ends: dict[str, list[str]] = {}
        self._stage = Stage(plain)

    def run(self, path: Path) -> None:
        """Run all steps, then the entry point with its CMD."""
        for step in read_steps(path):
            rest = Template(step.rest).safe_substitute(self._values)
            print(f"--- {step.word} {rest}", flush=True)  # noqa: T201 - its output
            getattr(self, f"_{step.word.lower()}")(rest)
        self._stage.run([*self._ends["ENTRYPOINT"], *self._ends["CMD"]])

    def _from(self, rest: str) -> None:
        name = rest.partition(" AS ")[2] or "last"
        self._roots[name] = _copied(self._plain, self._work / name, self._carried)
        self._stage = Stage(self._roots[name])

    def _arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self._values[name] = self._stage.variables[name] = self._arguments.get(name, value)

    def _env(self, rest: str) -> None:
        pairs = [word.partition("=") for word in shlex.split(rest)]
        variables = self._stage.variables
        variables |= {name: Template(value).safe_substitute(variables) for name, _, value in pairs}

    def _workdir(self, rest: str) -> None:
        (self._stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        self._stage.folder = rest

    def _copy(self, rest: str) -> None:
        self._stage.copy(rest.split(), self._roots)

    def _run(self, rest: str) -> None:
        self._stage.run(["/bin/sh", "-ec", rest])

    def _user(self, rest: str) -> None:
        self._stage.user = rest

    def _healthcheck(self, rest: str) -> None:
        pass  # it concerns what runs

    def _entrypoint(self, rest: str) -> None:
        self._ends["ENTRYPOINT"] = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        self._ends["CMD"] = json.loads(rest)


def _copied(plain: Path, root: Path, carried: list[str]) -> Path:
    """Copy the plain root, and files that the steps need to reach packages here; the base image has `python`."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(plain), str(root)], check=True)
    for pair in carried:
        name, _, target = pair.partition(":")
        to = root / (target or name).lstrip("/")
        to.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cp", "-a", "--dereference", "--no-target-directory", name, str(to)], check=True)
    (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
    return root


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dockerfile", type=Path)
    parser.add_argument("plain", type=Path, help="a root with Python and its module venv")
    parser.add_argument("work", type=Path, help="a folder for the stages")
    parser.add_argument("--carry", action="append", default=[], metavar="PATH[:TARGET]", help="copied into each stage")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    given.work.mkdir(parents=True)
    arguments = dict(pair.split("=", 1) for pair in given.build_arg)
    Build(given.plain, given.work, given.carry, arguments).run(given.dockerfile)


if __name__ == "__main__":
    _main()
