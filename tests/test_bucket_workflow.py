"""The workflow of a bucket runs unchanged, and again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import volseg
from volseg.storage import ObjectPath, target_path
from volseg.testing.factories import make_volume, read_volume
from volseg.testing.object_servers import has_moto, moto_server

WORKFLOWS = Path(__file__).parents[1] / "workflows"
OPTIONS = ("--block", "1,32,32", "--halo", "0,8,8", "--precision", "float32", "--device", "cpu")


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.skipif(not has_moto(), reason="no moto_server; install moto[s3,server] and set VOLSEG_MOTO")
def test_from_a_bucket_to_a_bucket(small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = make_volume(tmp_path / "raw.zarr", (2, 64, 96))
    options: dict[str, Any] = {"block": (1, 32, 32), "halo": (0, 8, 8), "precision": "float32", "device": "cpu"}
    with moto_server() as url:
        urlopen(Request(f"{url}/lab-bucket", method="PUT")).close()
        for key, value in {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "swordfish",
                           "AWS_REGION": "us-east-1"}.items():  # fmt: skip
            monkeypatch.setenv(key, value)
        program = tmp_path / "bin" / "volseg"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m volseg "$@"\n')
        program.chmod(0o755)
        environment = {
            **os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}", "BUCKET": "s3://lab-bucket/em",
            "RAW": str(raw), "MODEL": str(small_model), "CLUSTER": "serial", "PYTHONPATH": str(WORKFLOWS.parent),
        }  # fmt: skip
        for _ in range(2):  # the second time nothing is left to do
            done = subprocess.run(
                ["bash", str(WORKFLOWS / "bucket" / "run.sh"), *OPTIONS], env=environment, cwd=tmp_path,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert "swordfish" not in done.stdout + done.stderr
        volseg.predict(str(raw), str(tmp_path / "m.zarr"), model=str(small_model), cluster="serial", **options)
        place = target_path("s3://lab-bucket/em/membrane.zarr")
        assert isinstance(place, ObjectPath)
        stored = {entry.key.partition("membrane.zarr/")[2]: entry.key for entry in place.store.below(place.key)}
        local = [path for path in (tmp_path / "m.zarr").rglob("c/**/*") if path.is_file()]
        assert len(local) >= 12
        for path in local:
            name = str(path.relative_to(tmp_path / "m.zarr"))
            assert (place / name).read_bytes() == path.read_bytes(), name
            assert name in stored
        assert read_volume(tmp_path / "m.zarr").any()
