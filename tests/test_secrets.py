"""Credentials of URLs are in no file of a map, in no message and on no screen."""

from __future__ import annotations

import json
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from volseg.cli.main import main
from volseg.cli.output import value_text
from volseg.cli.progress import ProgressBar
from volseg.cluster.attempt import Failure, attempted
from volseg.errors import SourceError, redact, redacted
from volseg.storage import read_record
from volseg.testing.factories import make_volume

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

URL = "https://me:swordfish@host:80/raw.zarr?token=swordfish&part=swordfish"
SECRET = "swordfish"


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    """A volume behind a URL with a password."""
    make_volume(tmp_path / "www" / "raw.zarr", (2, 48, 48), chunk=(1, 48, 48))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=tmp_path / "www")) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://me:{SECRET}@127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_run_stores_and_shows_no_password(served: str, small_model: Path, tmp_path: Path) -> None:
    target = tmp_path / "map.zarr"
    words = ["predict", f"{served}/raw.zarr", str(target), "--model", str(small_model), "--mask", f"{served}/raw.zarr"]
    run = CliRunner().invoke(main, [*words, "--cluster", "serial", "--json"], catch_exceptions=False)
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["done"] > 0
    plan = CliRunner().invoke(main, [*words, "--overwrite", "--dry-run", "--json"])
    refused = CliRunner().invoke(main, [*words[:1], f"{served}/none.zarr", *words[2:], "--overwrite"])
    assert (plan.exit_code, refused.exit_code) == (0, 1)
    assert "***@127.0.0.1" in plan.stdout
    assert "***@127.0.0.1" in refused.stderr
    for shown in (run, plan, refused):
        assert SECRET not in shown.output
    assert read_record(target).source.location.startswith("http://***@127.0.0.1")
    for path in target.rglob("*"):
        assert path.is_dir() or SECRET.encode() not in path.read_bytes(), path


def test_a_resume_asks_for_a_mask_whose_password_was_not_stored(served: str, small_model: Path, tmp_path: Path) -> None:
    words = [
        "predict",
        f"{served}/raw.zarr",
        str(tmp_path / "m.zarr"),
        "--model",
        str(small_model),
        "--cluster",
        "serial",
    ]
    mask = ["--mask", f"{served}/raw.zarr"]
    assert CliRunner().invoke(main, [*words, *mask]).exit_code == 0
    without = CliRunner().invoke(main, [*words, "--resume"])
    assert (without.exit_code, "credentials are not stored; give it with --mask" in without.stderr) == (2, True)
    assert CliRunner().invoke(main, [*words, *mask, "--resume"]).exit_code == 0


def test_errors_notes_and_failures_of_blocks_are_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    def fail(number: int) -> Any:
        raise OSError(f"no answer from {URL}")

    failure = attempted(1, fail, "worker").result
    assert isinstance(failure, Failure)
    with ProgressBar() as bar:
        bar.note(f"reading {URL}")
    shown = [str(SourceError(f"cannot read {URL}: 403")), failure.message, failure.traceback, value_text(URL)]
    shown.append(capsys.readouterr().err.replace("\n", ""))
    for text in shown:
        assert SECRET not in text
        assert "https://***@host:80/raw.zarr?token=***&part=***" in text
    assert SECRET not in json.dumps(redacted({"data": [{"raw": URL, URL: 1}]}))


@pytest.mark.parametrize("text", ["s3://bucket/raw.zarr", "tcp://node:8786", "me@host a=b", "/data/x?y=1", "50 nm"])
def test_what_holds_no_credentials_stays(text: str) -> None:
    assert redact(text) == text
