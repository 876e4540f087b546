"""Run files: validation, overrides, and a complete copy."""

from __future__ import annotations

import tomllib
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import Field, ValidationError

from volseg.config import TrainConfig, as_toml, override, read_toml, validate
from volseg.config.base import FrozenModel
from volseg.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path


class Table(FrozenModel):
    size: tuple[int, int] = (1, 2)
    name: str = 'a "quoted" name'
    extra: dict[str, Any] = Field(default_factory=dict)
    limit: float | None = None
    """The limit, in seconds."""


class Config(FrozenModel):
    table: Table = Table()
    rows: tuple[Table, ...] = (Table(),)


MINIMAL = '[data]\nraw = "a"\nlabels = "b"\ntrain = [0, 3]\n[output]\nfolder = "o"\n'


def test_a_model_is_frozen_and_refuses_unknown_keys() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Table().limit = 3.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Table(limits=3.0)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(rows=(Table(), Table(extra={"a b": [1, 2], "c": {"d": True}}), Table(name="ü\n\\", limit=1e-9))),
    ],
)
def test_a_written_config_is_read_back(config: Config) -> None:
    assert validate(Config, tomllib.loads(as_toml(config)), "here") == config


def test_descriptions_stand_above_their_keys() -> None:
    assert "# The limit, in seconds.\n# limit is not set" in as_toml(Config())


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"table": {"sise": 3}},
            "unknown key 'table.sise' .did you mean 'size'..; choose from size, name, extra, limit",
        ),
        (
            {"rows": [{}, {"sise": 3}]},
            "unknown key 'rows.1.sise' .did you mean 'size'..; choose from size, name",
        ),
        ({"tables": {}}, "here: unknown key 'tables' .did you mean 'table'..; choose from table, rows"),
        ({"table": {"limit": "long"}}, r"here: table.limit: .*number.* \(given: 'long'\)"),
        ({"table": {"sise": 3, "limit": "long"}}, "unknown key 'table.sise'"),  # a misspelt key first
    ],
)
def test_invalid_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        validate(Config, values, "here")


def test_a_single_table_has_no_number_in_messages() -> None:
    values = tomllib.loads(MINIMAL.replace("raw =", "row ="))
    with pytest.raises(ConfigError, match=r"unknown key 'data.row'"):
        validate(TrainConfig, values, "here")


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("fit.steps=7", {"fit": {"steps": 7}, "data": [{"raw": "a"}]}),
        ("fit.seed = 2", {"fit": {"steps": 5, "seed": 2}, "data": [{"raw": "a"}]}),
        ("data.0.raw=b.zarr", {"fit": {"steps": 5}, "data": [{"raw": "b.zarr"}]}),
        ("new.table.key=[1, 2]", {"fit": {"steps": 5}, "data": [{"raw": "a"}], "new": {"table": {"key": [1, 2]}}}),
    ],
)
def test_an_override_changes_one_key_of_a_copy(assignment: str, expected: dict[str, Any]) -> None:
    values = {"fit": {"steps": 5}, "data": [{"raw": "a"}]}
    assert override(values, assignment) == expected
    assert values == {"fit": {"steps": 5}, "data": [{"raw": "a"}]}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("fit.steps", "--set fit.steps is not KEY=VALUE"),
        ("fit..steps=3", "is not KEY=VALUE"),
        ("data.raw=b", "there are 1 of these tables"),
        ("data.1.raw=b", "there are 1 of these tables"),
        ("fit.steps.more=3", "'more' is below a value that is not a table"),
    ],
)
def test_invalid_overrides_are_refused(assignment: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override({"fit": {"steps": 5}, "data": [{"raw": "a"}]}, assignment)


def test_a_run_file_is_read_with_overrides(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(MINIMAL)
    assert read_toml(tmp_path / "run.toml", TrainConfig, ["fit.steps=7", "fit.seed=2"]).fit.steps == 7


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), (b"[fit", "not TOML"), (b"\xff", "not TOML")])
def test_files_that_are_not_toml_are_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{path}.*{message}"):
        read_toml(path, TrainConfig)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b".".join([b"a"] * 20_000) + b" = 1", "a line has more than 1000 dots"),
        (b".".join([b"a"] * 900) + b" = 1", "nested more than 32 levels deep"),
        (b"fit = " + b"[" * 100_000, "nested too deep"),
        (b"fit = " + b"[" * 40 + b"]" * 40, "nested more than 32 levels deep"),
        (b"fit.steps = 1" + b"0" * 400, r"the integer 10000000000000000000\.\. has more than 64 bits"),
        (b"fit.steps = 1" + b"0" * 5000, "4300 digits"),
        (b'data = [{raw = "a\\u0000b"}]', "a text holds a NUL"),
        (b'"a\\u0000b" = 1', "a text holds a NUL"),
        (b"fit.steps = 1\0", "not TOML"),
        (b"# " + b"a" * (1 << 18), "it has more than 262144 bytes"),
    ],
)
def test_run_files_of_strangers_are_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "run.toml").write_bytes(content)
    with pytest.raises(ConfigError, match=f"run.toml is not TOML: .*{message}|run.toml is {message}") as caught:
        read_toml(tmp_path / "run.toml", TrainConfig)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "assignment",
    [".".join("a" * 20_000) + "=1", "fit.steps=" + "[" * 100_000, "fit.steps=1" + "0" * 400, 'fit="\\u0000"'],
)
def test_overrides_of_strangers_are_one_line(assignment: str) -> None:
    with pytest.raises(ConfigError, match=r"^--set .*(deep|64 bits|NUL)") as caught:
        override({"fit": {"steps": 5}}, assignment)
    assert len(str(caught.value)) < 300


def test_a_long_wrong_value_is_cut_in_the_message(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(f"{MINIMAL}\n[fit]\nsteps = '{'a' * 100_000}'\n")
    with pytest.raises(ConfigError, match="fit.steps") as caught:
        read_toml(tmp_path / "run.toml", TrainConfig)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize("file", ["s3://bucket/run.toml", "s3:/bucket/run.toml"])
def test_a_run_file_behind_a_url_is_refused_with_the_way_out(file: str) -> None:
    with pytest.raises(ConfigError, match="run file s3:/.*run.toml is a URL; copy it to a path and name that"):
        read_toml(file, Config)
