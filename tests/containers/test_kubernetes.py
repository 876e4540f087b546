"""The files for Kubernetes: their schema, and what they promise: ends, retries, GPUs, no secrets."""

from __future__ import annotations

import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np
import pytest

import volseg
from tests.containers.dockerfile import ROOT
from tests.test_documents import _parse as parse_command
from volseg.cli.stop import STOPPED
from volseg.testing.factories import make_volume, read_volume

FILES = sorted((ROOT / "docker" / "kubernetes").glob("*.yaml"))
OBJECTS: list[dict[str, Any]] = [
    entry for path in FILES for entry in import_module("yaml").safe_load_all(path.read_text())
]
TEMPLATES = {entry["metadata"]["name"]: entry["spec"]["template"] for entry in OBJECTS if "template" in entry["spec"]}
PODS = {name: template["spec"] for name, template in TEMPLATES.items()}
JOBS = {entry["metadata"]["name"]: entry["spec"] for entry in OBJECTS if entry["kind"] == "Job"}
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def container(name: str) -> dict[str, Any]:
    (found,) = PODS[name]["containers"]
    return found


def variables(of: dict[str, Any]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in of.get("env", [])}


def test_the_files_hold_what_the_page_says() -> None:
    assert set(PODS) == {"volseg-scheduler", "volseg-worker", "volseg-predict", "volseg-parts"}
    assert {entry["kind"] for entry in OBJECTS} == {"Deployment", "Service", "NetworkPolicy", "Job"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_object_fits_the_schema_of_kubernetes(path: Path) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="pip install kubernetes-validate")
    for entry in import_module("yaml").safe_load_all(path.read_text()):
        validator.validate(entry, "1.31", strict=True)
        wrong = {**entry, "spec": {**entry["spec"], "replicaz": 1}}
        with pytest.raises(validator.ValidationError):
            validator.validate(wrong, "1.31", strict=True)


@pytest.mark.parametrize("name", JOBS)
def test_a_stop_is_tried_again_without_end_and_wrong_use_is_not(name: str) -> None:
    job = JOBS[name]
    assert job["template"]["spec"]["restartPolicy"] == "Never", "else the policy is not asked"
    codes = {
        code: rule["action"]
        for rule in job["podFailurePolicy"]["rules"]
        if "onExitCodes" in rule and rule["onExitCodes"]["containerName"] == "volseg"
        for code in rule["onExitCodes"]["values"]
    }
    assert codes == {STOPPED: "Ignore", 2: "FailJob"}
    assert job["podReplacementPolicy"] == "Failed", "a target has one driver at a time"
    assert container(name)["name"] == "volseg"


@pytest.mark.parametrize("name", PODS)
def test_no_pod_is_root_or_without_limits_or_has_a_secret_in_its_file(name: str) -> None:
    pod = PODS[name]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    for one in [*pod["containers"], *pod.get("initContainers", [])]:
        assert one["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"cpu", "memory"} <= set(one["resources"]["requests"])
        assert "memory" in one["resources"]["limits"]
        assert all(set(source) == {"secretRef"} for source in one.get("envFrom", []))
        assert set(variables(one)) <= {"VOLSEG_NOTICE", "MALLOC_ARENA_MAX", "PARTS"}
        assert all("KEY" not in entry["name"] for entry in one.get("env", []))


def test_a_worker_has_one_gpu_and_longer_to_end_than_its_notice() -> None:
    worker = container("volseg-worker")
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "--preload-nanny" in worker["command"]
    notice = float(variables(worker)["VOLSEG_NOTICE"])
    assert PODS["volseg-worker"]["terminationGracePeriodSeconds"] >= notice + 15


def test_workers_and_driver_name_the_service_of_the_scheduler() -> None:
    (service,) = [entry for entry in OBJECTS if entry["kind"] == "Service"]
    address = f"tcp://{service['metadata']['name']}:{service['spec']['ports'][0]['port']}"
    assert address in container("volseg-worker")["command"]
    assert address in container("volseg-predict")["args"]
    assert address in PODS["volseg-predict"]["initContainers"][0]["command"][-1]
    assert service["spec"]["selector"].items() <= TEMPLATES["volseg-scheduler"]["metadata"]["labels"].items()


def test_the_commands_parse_and_there_is_a_part_for_each_index() -> None:
    parse_command(container("volseg-predict")["args"])
    words = shlex.split(container("volseg-parts")["args"][0])
    assert words[:2] == ["exec", "volseg"]
    parse_command(words[2:])
    assert str(JOBS["volseg-parts"]["completions"]) == variables(container("volseg-parts"))["PARTS"]


@pytest.mark.slow
def test_the_pods_of_the_indexed_job_write_the_map_of_one_driver(small_model: Path, tmp_path: Path) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (3, 96, 96))
    options = "--device cpu --precision float32 --halo 0,8,8 --block 1,32,32 --tile 1,32,32 --cluster serial"
    pod = container("volseg-parts")
    script = pod["args"][0].replace("model.safetensors", f"{small_model} {options}")
    for index in range(3):
        environment = {**os.environ, "PATH": PATH, "JOB_COMPLETION_INDEX": str(index), "PARTS": "3"}
        done = subprocess.run(
            [*pod["command"], script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    volseg.predict(
        str(raw), str(tmp_path / "one.zarr"), model=str(small_model), cluster="serial", device="cpu",
        precision="float32", halo=(0, 8, 8), block=(1, 32, 32), tile=(1, 32, 32),
    )  # fmt: skip
    np.testing.assert_array_equal(read_volume(tmp_path / "membrane.zarr"), read_volume(tmp_path / "one.zarr"))


@pytest.fixture
def ports() -> dict[str, str]:
    """Free ports, in place of those of the files."""
    sockets = {name: socket.socket() for name in ("8786", "8787", "8790")}
    for one in sockets.values():
        one.bind(("127.0.0.1", 0))
    free = {name: str(one.getsockname()[1]) for name, one in sockets.items()}
    for one in sockets.values():
        one.close()
    return free


def start(name: str, ports: dict[str, str]) -> subprocess.Popen[str]:
    words = [word.replace("volseg-scheduler", "127.0.0.1") for word in container(name)["command"]]
    for old, new in ports.items():
        words = [word.replace(old, new) for word in words]
    environment = {**os.environ, **variables(container(name)), "PATH": PATH, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_for_health(port: str) -> None:
    until = time.monotonic() + 60
    while True:
        try:
            with urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
                assert answer.status == 200
            return
        except URLError:
            assert time.monotonic() < until
            time.sleep(0.2)


@pytest.mark.slow
def test_scheduler_and_worker_answer_their_probes_and_an_idle_worker_ends_at_once(ports: dict[str, str]) -> None:
    scheduler = start("volseg-scheduler", ports)
    worker = None
    try:
        wait_for_health(ports["8787"])
        worker = start("volseg-worker", ports)
        wait_for_health(ports["8790"])
        worker.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        worker.communicate(timeout=60)
        assert time.monotonic() - begun < 30, "not only after the notice of 120 s"
    finally:
        for process in (worker, scheduler):
            if process is not None and process.poll() is None:
                process.terminate()
                process.communicate(timeout=60)
