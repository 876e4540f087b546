"""Documents are correct: what they name exists, and their commands and run files parse."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import click
import pytest
import torch

import volseg
from volseg.cli.main import COMMANDS, main
from volseg.cli.models import ModelsGroup
from volseg.cluster.submission import SLOT
from volseg.config import BatchConfig, PredictConfig, Prices, TrainConfig, read_toml, validate
from volseg.models.registry import build_network

ROOT = Path(__file__).parents[1]
MARKDOWN = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "docker/**/*.md", "workflows/**/*.md", "benchmarks/**/*.md")
    for path in ROOT.glob(pattern)
)
SCRIPTS = sorted([*ROOT.glob("workflows/**/*.sh"), *ROOT.glob("workflows/**/*.sbatch")])
COMPOSE = ROOT / "docker" / "compose.yaml"

GROUPS = {
    group
    for path in ROOT.glob("volseg/**/*.py")
    for group in re.findall(r'Registry\(\s*"(volseg\.\w+)"', path.read_text())
}
"""Entry-point groups of plug-ins."""

_FENCE = re.compile(r"^[ ]*```(\w*)\n(.*?)^[ ]*```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\]\[]|`[^`]*`)*\]\(([^)\s]+)\)|(?:src|href)=\"([^\"]+)\"")
_STEP_BEFORE = r"(?:^|[\s;&|(]|echo )"
_COMMAND = re.compile(_STEP_BEFORE + r"volseg ([a-z]+|--?[a-z]+)\b(.*)$", re.MULTILINE)


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _fences(path: Path, *languages: str) -> list[str]:
    return [body for language, body in _FENCE.findall(path.read_text()) if language in languages]


def _shell(path: Path) -> str:
    """Shell commands of a document, with continued lines joined and comments removed."""
    text = path.read_text()
    if path.suffix == ".md":
        inline = re.findall(r"`(volseg [^`\n]+)`", _FENCE.sub("", text))
        text = "\n".join([*_fences(path, "bash", "sh", "console"), *inline])
    joined = re.sub(r"\\\n\s*", " ", text)
    return "\n".join(re.sub(r"(^|\s)#.*$", "", line) for line in joined.splitlines())


def _command_lines(path: Path) -> list[list[str]]:
    """Arguments of each `volseg ...` in a document."""
    return [
        [name, *(word for word in shlex.split(rest.removesuffix("&")) if word != "$@")]
        for name, rest in _COMMAND.findall(_shell(path))
        if name != "in"
    ]


COMMAND_LINES = [
    pytest.param([*words], id=f"{_name(path)}: {' '.join(words)}")
    for path in (*MARKDOWN, *SCRIPTS)
    for words in dict.fromkeys(map(tuple, _command_lines(path)))
]


def _parse(words: list[str]) -> None:
    """Parse arguments with click, without running the command.

    Raises:
        click.UsageError: an unknown option, a missing value, or too many arguments.
    """
    context = click.Context(main)
    if words[0].startswith("-"):
        main.make_parser(context).parse_args(words)
        return
    command = main.get_command(context, words[0])
    if command is None:
        raise click.UsageError(f"there is no command {words[0]!r}")
    context, given = click.Context(command, parent=context), words[1:]
    if isinstance(command, click.Group):
        name, *given = command.with_default(given, context) if isinstance(command, ModelsGroup) else given
        command = command.get_command(context, name)
        assert command is not None
    _, left, _ = command.make_parser(click.Context(command, parent=context)).parse_args(given)
    if left:
        raise click.UsageError(f"{words[0]} does not take {left}")


def test_the_documents_are_found():
    assert {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/README.md", "docker/README.md"} <= set(
        map(_name, MARKDOWN)
    )
    assert SCRIPTS
    assert len(COMMAND_LINES) > 20


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_every_command_line_parses(words: list[str]):
    _parse([word for word in words if word != "COMMAND"])


def test_wrong_command_lines_are_detected():
    for words in (["predikt", "a"], ["predict", "a", "b", "--modell", "m"], ["view"] * 2 + ["--port"]):
        with pytest.raises(click.UsageError):
            _parse(words)


def test_the_readme_shows_the_main_commands():
    shown = {words[0] for words in _command_lines(ROOT / "README.md")}
    assert {"convert", "train", "predict", "evaluate", "view"} <= shown


@pytest.mark.parametrize("path", MARKDOWN, ids=_name)
def test_every_relative_link_and_image_exists(path: Path):
    targets = [first or second for first, second in _LINK.findall(_FENCE.sub("", path.read_text()))]
    relative = [t.partition("#")[0] for t in targets if "://" not in t and not t.startswith(("#", "mailto:"))]
    missing = [target for target in relative if not (path.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("path", MARKDOWN, ids=_name)
def test_every_make_target_exists(path: Path):
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    typed = set(re.findall(r"`make ([a-z-]+)`", path.read_text()))
    typed |= set(re.findall(r"^make ([a-z-]+)", _shell(path), re.MULTILINE))
    assert typed <= made


def test_commands_that_are_documented_by_name_exist():
    named = {n for path in MARKDOWN for n in re.findall(r"`volseg ([a-z]+)`", path.read_text())}
    assert named <= set(COMMANDS)


@pytest.mark.parametrize("path", MARKDOWN, ids=_name)
def test_python_snippets_name_what_volseg_exports(path: Path):
    for snippet in _fences(path, "python"):
        for node in ast.walk(ast.parse(snippet)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "volseg":
                assert node.attr in volseg.__all__
    for name in re.findall(r"`volseg\.(\w+)`", path.read_text()):
        assert name in volseg.__all__ or f"volseg.{name}" in GROUPS


def test_python_snippets_give_options_that_predict_takes():
    given = {
        keyword.arg
        for path in MARKDOWN
        for snippet in _fences(path, "python")
        for call in ast.walk(ast.parse(snippet))
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "volseg.predict"
        for keyword in call.keywords
    }
    assert given <= {*PredictConfig.model_fields, "progress"}


@pytest.mark.parametrize("path", sorted(ROOT.glob("workflows/**/*.toml")), ids=_name)
def test_run_files_are_valid(path: Path):
    read_toml(path, BatchConfig if path.name == "cluster.toml" else TrainConfig)


# The run file of extending.md needs its package, and is read in test_extending.py.
@pytest.mark.parametrize("path", [path for path in MARKDOWN if path.name != "extending.md"], ids=_name)
def test_run_files_in_documents_are_valid(path: Path):
    for text in _fences(path, "toml"):
        if "[worker_hour]" in text:
            validate(Prices, tomllib.loads(text), _name(path))
            continue
        needed = {"data": {"raw": "", "labels": "", "train": [0, 1]}, "output": {"folder": ""}}
        # A document may show some of the tables.
        network = validate(TrainConfig, {**needed, **tomllib.loads(text)}, _name(path)).network
        with torch.device("meta"):
            build_network(network.name, network.arguments)


@pytest.mark.parametrize("path", [*MARKDOWN, *SCRIPTS], ids=_name)
def test_workers_are_started_with_the_resource_of_volseg(path: Path):
    workers = re.findall(r"dask worker .*", _shell(path))
    assert all(f"--resources {SLOT}=" in worker for worker in workers)


def _services() -> dict[str, Any]:
    # yaml ships no types; it is here because Dask needs it.
    services: dict[str, Any] = import_module("yaml").safe_load(COMPOSE.read_text())["services"]
    return services


def test_the_compose_file_has_a_scheduler_and_workers_with_slots():
    services = _services()
    worker = services["worker"]
    assert worker["deploy"]["replicas"] == 2
    assert worker["entrypoint"][:2] == ["dask", "worker"]
    assert any(word.startswith(f"{SLOT}=") for word in worker["entrypoint"])
    assert services["scheduler"]["entrypoint"][:2] == ["dask", "scheduler"]
    port = services["scheduler"]["entrypoint"][services["scheduler"]["entrypoint"].index("--port") + 1]
    assert f"tcp://scheduler:{port}" in worker["entrypoint"]
    assert all("/data" in "".join(service["volumes"]) for service in services.values())


def test_commands_of_the_compose_file_parse():
    commands = [service["command"] for service in _services().values() if "command" in service]
    commands += [words[1:] for words in _composed_runs()]
    assert len(commands) > 2
    for words in commands:
        _parse(words)


def _composed_runs() -> list[list[str]]:
    """Commands after `docker compose run --rm` or `docker run ... volseg:cpu` in documents."""
    comments = re.sub(r"^# ?", "", COMPOSE.read_text(), flags=re.MULTILINE)
    texts = [re.sub(r"\\\n\s*", " ", comments), *map(_shell, MARKDOWN)]
    found = [line for text in texts for line in re.findall(r"run --rm (volseg .*)", text)]
    return [shlex.split(re.sub(r"#.*", "", line)) for line in found if "COMMAND" not in line]


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_a_dockerfile_copies_what_its_context_contains(name: str):
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "docker" / name).read_text(), re.MULTILINE)
    assert {name for names in copied for name in names.split()} == kept


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_a_container_does_not_run_as_root(name: str):
    users = re.findall(r"^USER (\S+)", (ROOT / "docker" / name).read_text(), re.MULTILINE)
    assert users
    assert users[-1].partition(":")[0] not in ("0", "root")
