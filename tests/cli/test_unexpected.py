"""An error that no check foresaw is one line that names a log; --debug prints its traceback."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

import volseg.models.catalog
from volseg.cli.main import main
from volseg.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

URL = "https://me:geheim@host/raw.zarr?X-Amz-Signature=ab12"


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Result]:
    """Runs `volseg models`, which ends in an error; logs go below the test's folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def call(error: BaseException, *options: str) -> Result:
        def fail() -> None:
            raise error

        monkeypatch.setattr(volseg.models.catalog, "list_models", fail)
        return CliRunner().invoke(main, [*options, "models"])

    return call


def log_of(result: Result) -> Path:
    match = re.search(r"the traceback is in (\S+\.log)\. Please report it$", result.stderr.strip())
    assert match is not None, result.stderr
    return Path(match[1])


def test_an_unexpected_error_is_one_line_and_a_log_that_only_the_user_reads(
    failing: Callable[..., Result], tmp_path: Path
) -> None:
    result = failing(ValueError(f"no {URL}\nand \x1b[31mmore" + "!" * 1000))
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(
        "Error: volseg did not expect this error: ValueError: no https://***@host/raw.zarr?"
    )
    assert len(result.stderr.splitlines()) == 1
    assert "\x1b" not in result.stderr
    log = log_of(result)
    assert log.parent == tmp_path / "cache" / "volseg" / "errors"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    text = log.read_text()
    assert "Traceback (most recent call last)" in text
    assert "in fail" in text
    for secret in ("geheim", "ab12"):
        assert secret not in text + result.output


@pytest.mark.parametrize("error", [RecursionError("deep"), OSError(5, "I/O"), AssertionError()])
def test_errors_of_all_kinds_are_one_line(failing: Callable[..., Result], error: Exception) -> None:
    result = failing(error)
    assert result.exit_code == 1
    assert f"this error: {type(error).__name__}" in result.stderr
    assert type(error).__name__ in log_of(result).read_text()


def test_memory_that_ran_out_is_one_line_with_a_way_out(failing: Callable[..., Result]) -> None:
    result = failing(MemoryError())
    assert result.exit_code == 1
    assert "memory ran out (MemoryError); give a smaller --block or --tile, or fewer --workers" in result.stderr


def test_the_log_lies_in_the_temporary_folder_if_there_is_no_cache(
    failing: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert log_of(failing(ValueError("no"))).parent == tmp_path
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert "no log file could be written; see the traceback with --debug" in failing(ValueError("no")).stderr


def test_debug_prints_the_traceback_without_credentials_and_writes_no_log(
    failing: Callable[..., Result], tmp_path: Path
) -> None:
    result = failing(ValueError(f"no {URL}"), "--debug")
    assert result.exit_code == 1
    assert "Traceback (most recent call last)" in result.stderr
    assert result.stderr.endswith("Error: ValueError, see above\n")
    assert "geheim" not in result.stderr
    assert not (tmp_path / "cache").exists()
    refused = CliRunner().invoke(main, ["--debug", "models", "unte"])
    assert refused.exit_code == 2
    assert "Traceback" in refused.stderr
    assert "Error: model 'unte' is neither" in refused.stderr
    assert "Traceback" not in CliRunner().invoke(main, ["models", "unte"]).stderr


def test_an_interrupt_is_no_error(failing: Callable[..., Result]) -> None:
    result = failing(KeyboardInterrupt())
    assert (result.exit_code, result.stderr.strip()) == (4, "Stopped.")
    assert isinstance(failing(BrokenPipeError(32, "closed")).exception, SystemExit)


def test_a_message_has_no_control_characters_of_a_file_that_it_quotes() -> None:
    assert str(SourceError("holds \x1b[2J\x07x\r\ny\u202e")) == "holds \ufffd[2J\ufffdx y\ufffd"
