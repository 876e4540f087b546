"""A short form of the campaign of hostile input, in this process; and what that campaign has found."""

from __future__ import annotations

import os
import random
import traceback
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tests.faults.guarded import Ended, guarded
from tests.faults.hostile import COMMANDS, command_line, damaged_state, make_folder, state_command, state_files
from volseg.cli.main import main
from volseg.config import TrainConfig, read_toml
from volseg.errors import ConfigError, ModelError, SourceError, TargetError
from volseg.models.interop.state_dict import read_state_dict
from volseg.storage import open_readable, open_target, read_table
from volseg.storage.paths import local_output

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Valid and strange files of all kinds."""
    made: Path = tmp_path_factory.mktemp("fuzz") / "all"
    make_folder(made, computed=False)
    return made


def finding(arguments: list[str]) -> str:
    """What a command line leads to in this process, as the campaign sees it."""
    result = CliRunner().invoke(main, arguments)
    said = result.output
    if result.exc_info is not None and not isinstance(result.exception, SystemExit | None):
        said += "".join(traceback.format_exception(*result.exc_info))
    return Ended(result.exit_code, said, 0.0, 0).finding


@pytest.mark.parametrize("command", COMMANDS)
def test_hostile_command_lines_end_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    monkeypatch.chdir(folder)
    rng = random.Random(command)
    for _ in range(3):
        arguments = command_line(folder, rng, command)
        assert finding(arguments) == "", arguments


def test_damaged_states_of_runs_end_in_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    rng = random.Random(1)
    for name in ("done.zarr", "half.zarr"):
        for file in state_files(folder / name):
            content = file.read_bytes()
            for _ in range(2):
                file.write_bytes(damaged_state(file, content, rng))
                arguments = state_command(name, rng)
                assert finding(arguments) == "", (file, arguments)
            file.write_bytes(content)


def test_the_campaign_sees_hangs_memory_and_tracebacks(tmp_path: Path) -> None:
    def spin() -> None:
        while True:
            pass

    def allocate() -> None:
        np.ones(2 << 30, np.uint8)

    def fail() -> None:
        raise ValueError("of a test")

    log = tmp_path / "log"
    assert "hangs" in guarded(spin, tmp_path, log, seconds=0.1).finding
    assert "MemoryError" in guarded(allocate, tmp_path, log).finding
    assert "of a test" in guarded(fail, tmp_path, log).finding
    assert guarded(lambda: None, tmp_path, log).finding == ""


@pytest.mark.parametrize("damage", ['{"zarr_format": 3, "node_type": "array", "codecs": 1}', "[]", "{}", "\0", ""])
def test_damaged_metadata_of_a_target_are_refused(tmp_path: Path, damage: str) -> None:
    (tmp_path / "0").mkdir()
    (tmp_path / "0" / "zarr.json").write_text(damage)
    with pytest.raises(TargetError, match="is not a target"):
        open_target(tmp_path)


@pytest.mark.parametrize("name", ["n" * 300, "9" * 5000])
def test_names_that_no_file_system_takes_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TargetError, match="File name too long"):
        local_output(tmp_path / name)
    with pytest.raises(SourceError, match="File name too long"):
        open_readable(str(tmp_path / name))
    with pytest.raises(ConfigError, match="there is no file"):
        read_state_dict(tmp_path / name)


def test_a_run_file_that_is_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "run.toml")
    with pytest.raises(ConfigError, match="run.toml: it is not a file"):
        read_toml(tmp_path / "run.toml", TrainConfig)


@pytest.mark.parametrize("shape", ["(1, 2", "(1000000000000, 2)", "x"])
def test_constants_with_a_damaged_header_are_refused(tmp_path: Path, shape: str) -> None:
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    (tmp_path / "statistics-ab.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + header.encode() + bytes(16))
    with pytest.raises(TargetError, match="statistics-ab.npy"):
        read_table(tmp_path, "ab")


def test_a_damaged_pickle_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "m.pt", _use_new_zipfile_serialization=False)
    content = (tmp_path / "m.pt").read_bytes()
    for at in range(0, len(content), 7):
        (tmp_path / "m.pt").write_bytes(content[:at] + b"\x85" + content[at + 1 :])
        try:
            read_state_dict(tmp_path / "m.pt")
        except ModelError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017
