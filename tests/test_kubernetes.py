"""The manifests are valid, hold no secret, and call volseg as its command line is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.cli.stop import STOPPED

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docker" / "kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
NEEDED = "no kubernetes-validate; pip install it into an environment of its own, and set VOLSEG_KUBERNETES_VALIDATE"
VALIDATE = os.environ.get("VOLSEG_KUBERNETES_VALIDATE") or shutil.which("kubernetes-validate")


def documents() -> list[dict[str, Any]]:
    return [document for path in FILES for document in yaml.safe_load_all(path.read_text())]


def pods() -> dict[str, dict[str, Any]]:
    """What each workload says of its pods, by its name."""
    return {d["metadata"]["name"]: d["spec"]["template"]["spec"] for d in documents() if "template" in d["spec"]}


@pytest.mark.skipif(
    VALIDATE is None, reason="no kubernetes-validate; pip install it and set VOLSEG_KUBERNETES_VALIDATE"
)
def test_the_manifests_are_those_of_kubernetes() -> None:
    done = subprocess.run(
        [str(VALIDATE), "--strict", "-k", "1.31", *map(str, FILES)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_pods_run_as_a_user_with_limits_and_without_the_cluster_s_credentials() -> None:
    assert set(pods()) == {"volseg-scheduler", "volseg-worker", "volseg-predict", "volseg-parts"}
    for name, pod in pods().items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["automountServiceAccountToken"] is False, name
        for container in pod["containers"]:
            assert {"cpu", "memory"} <= {*container["resources"]["requests"]}, name
            assert "memory" in container["resources"]["limits"], name
            for variable in container.get("env", ()):
                assert not re.search("KEY|SECRET|TOKEN|PASSWORD", variable["name"]), name


def test_a_worker_is_given_as_long_as_it_was_told() -> None:
    pod = pods()["volseg-worker"]
    (notice,) = [v["value"] for v in pod["containers"][0]["env"] if v["name"] == "VOLSEG_NOTICE"]
    assert int(notice) < pod["terminationGracePeriodSeconds"]
    assert pod["containers"][0]["command"].count("volseg.cluster.ending") == 2


@pytest.mark.parametrize("name", ["volseg-predict", "volseg-parts"])
def test_a_job_that_was_stopped_is_tried_again_and_a_wrong_call_is_not(name: str) -> None:
    (job,) = [document for document in documents() if document["metadata"]["name"] == name]
    rules = {tuple(rule["onExitCodes"]["values"]): rule for rule in job["spec"]["podFailurePolicy"]["rules"]
             if "onExitCodes" in rule}  # fmt: skip
    assert rules[(STOPPED,)]["action"] == "Ignore"
    assert rules[2, 3]["action"] in ("FailJob", "FailIndex")
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert all(rule["onExitCodes"]["containerName"] == container["name"] for rule in rules.values())


@pytest.mark.parametrize("index", [0, 7])
def test_each_index_of_the_job_is_a_part(index: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pods()["volseg-parts"]["containers"]
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    script = tmp_path / "volseg"
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    script.chmod(0o755)
    done = subprocess.run(
        [*container["command"], *container["args"]], capture_output=True, text=True, check=True,
        env={**environment, "JOB_COMPLETION_INDEX": str(index), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    words = done.stdout.split()
    assert words[-2:] == ["--part", f"{index + 1}/8"]
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(main, words)
    assert "model 'model.safetensors' is neither a file" in refused.stderr, (
        refused.output
    )  # all its options are understood


def test_the_driver_calls_volseg_as_its_command_line_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (container,) = pods()["volseg-predict"]["containers"]
    monkeypatch.chdir(tmp_path)
    refused = CliRunner().invoke(main, container["args"])
    assert "model 'model.safetensors' is neither a file" in refused.stderr, refused.output
