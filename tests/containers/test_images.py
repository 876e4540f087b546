"""Dockerfiles and compose files: pins, users, extras; each GPU has its worker."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.containers.dockerfile import ROOT, kept_in_context, read_steps

DOCKER = ROOT / "docker"
IMAGES = ["Dockerfile", "Dockerfile.cuda"]


def rests(name: str, word: str) -> list[str]:
    return [step.rest for step in read_steps(DOCKER / name) if step.word == word]


def composed(*names: str) -> dict[str, Any]:
    """Services of compose files, where a key of a later file takes the place of one of an earlier."""
    services: dict[str, Any] = {}
    for name in names:
        for service, keys in import_module("yaml").safe_load((DOCKER / name).read_text())["services"].items():
            services[service] = _merged(services.get(service, {}), keys)
    return services


def _merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    both = {key: _merged(first[key], second[key]) for key in first.keys() & second.keys()
            if isinstance(first[key], dict) and isinstance(second[key], dict)}  # fmt: skip
    return first | second | both


@pytest.mark.parametrize("name", IMAGES)
def test_the_base_is_an_exact_version_and_the_same_in_all_stages(name: str) -> None:
    (base,) = [rest for rest in rests(name, "ARG") if rest.startswith("BASE=")]
    assert re.fullmatch(r"BASE=python:3\.\d+\.\d+-slim-\w+", base)
    assert {rest.partition(" ")[0] for rest in rests(name, "FROM")} == {"${BASE}"}


@pytest.mark.parametrize("name", IMAGES)
def test_packages_are_pinned_by_the_constraints_and_torch_by_name(name: str) -> None:
    installs = [rest for rest in rests(name, "RUN") if "pip install" in rest]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in install for install in installs)
    assert installs[0].split()[-1] in (ROOT / "constraints.txt").read_text().splitlines()


@pytest.mark.parametrize("name", IMAGES)
def test_one_argument_names_the_extras_and_the_default_ones_exist(name: str) -> None:
    (extras,) = [rest for rest in rests(name, "ARG") if rest.startswith("EXTRAS=")]
    known = set(re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE))
    assert set(extras.partition("=")[2].split(",")) <= known
    assert '".[${EXTRAS}]"' in rests(name, "RUN")[-2]


@pytest.mark.parametrize("name", IMAGES)
def test_the_image_runs_as_a_user_and_copies_what_its_context_has(name: str) -> None:
    assert rests(name, "USER") == ["1000:1000"]
    copied = [rest.split()[:-1] for rest in rests(name, "COPY") if not rest.startswith("--from")]
    assert {path for paths in copied for path in paths} == kept_in_context()


def test_the_images_differ_in_torch_and_gpus_only() -> None:
    cpu, cuda = ([step for step in read_steps(DOCKER / name) if step.word in ("RUN", "COPY", "USER", "CMD")]
                 for name in IMAGES)  # fmt: skip
    assert [(a.rest, b.rest) for a, b in zip(cpu, cuda, strict=True) if a != b] == [(cpu[2].rest, cuda[2].rest)]
    assert "/whl/cpu" in rests("Dockerfile", "ARG")[1]
    assert re.search(r"/whl/cu\d+$", rests("Dockerfile.cuda", "ARG")[1])


def test_the_health_check_of_gpus_fails_where_no_driver_answers() -> None:
    (check,) = rests("Dockerfile.cuda", "HEALTHCHECK")
    code = import_module("json").loads(check.partition("CMD ")[2])[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode == 0) == (shutil.which("nvidia-smi") is not None)
    assert done.returncode == 0 or "NVMLError" in done.stderr


def test_each_gpu_has_one_worker_and_no_other_worker_is_left() -> None:
    worker = composed("compose.yaml", "compose.cuda.yaml")["worker"]
    assert worker["image"] == "volseg:cuda"
    assert worker["deploy"]["replicas"] == 1
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["count"], device["capabilities"]) == ("nvidia", "all", ["gpu"])
    words = worker["entrypoint"]
    number = words[words.index("--nworkers") + 1]
    assert number == worker["environment"]["VOLSEG_WORKERS"]
    assert words[words.index("--preload-nanny") + 1] == "volseg.cluster.ending"
    assert "--name" in words, "its end is the number of the GPU"
    assert worker["environment"]["MALLOC_ARENA_MAX"] == "1", "as in compose.yaml"


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.cuda.yaml"]])
def test_workers_have_longer_to_stop_than_the_notice_for_their_blocks(files: list[str]) -> None:
    worker = composed(*files)["worker"]
    notice = float(worker["environment"].get("VOLSEG_NOTICE", 30))
    assert float(worker["stop_grace_period"].removesuffix("s")) >= notice + 10


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.cuda.yaml"]])
def test_only_the_workers_and_the_scheduler_are_checked_as_services(files: list[str]) -> None:
    services = composed(*files)
    assert services["worker"]["depends_on"]["scheduler"]["condition"] == "service_healthy"
    assert "healthcheck" in services["scheduler"]
    if len(files) == 2:
        assert all(services[name]["healthcheck"] == {"disable": True} for name in ("volseg", "viewer"))


@pytest.mark.parametrize("name", ["compose.yaml", "compose.cuda.yaml"])
def test_the_compose_files_fit_the_schema(name: str) -> None:
    program = Path(sys.executable).parent / "check-jsonschema"
    if not program.exists():
        pytest.skip("needs check-jsonschema")
    words = [str(program), "--builtin-schema", "vendor.compose-spec", str(DOCKER / name)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
