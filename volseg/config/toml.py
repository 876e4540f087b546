"""Run files read from TOML, with keys set on the command line; what does not fit is refused in one line."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from volseg.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

if TYPE_CHECKING:
    from collections.abc import Iterable

ModelT = TypeVar("ModelT", bound=BaseModel)


def checked(kind: type[ModelT], values: dict[str, Any], where: str) -> ModelT:
    """Make a config of plain values.

    Raises:
        ConfigError: names the first key that does not fit, its value and what would fit.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # A key that is written wrong is also missing: say what is there, not what is not.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        # Of a table that stands alone people know no number.
        alone = isinstance(values.get(str(first["loc"][0])) if first["loc"] else None, dict)
        key = ".".join(str(part) for part in first["loc"] if not (alone and isinstance(part, int)))
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where} does not know {key!r}; {_known(kind, first['loc'])}") from None
        message = first["msg"].removeprefix("Value error, ")
        given = "" if first["type"] in ("missing", "value_error") else f" (given: {first['input']!r})"
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{message}{given}") from None


def _known(kind: type[BaseModel], place: tuple[int | str, ...]) -> str:
    """The keys that would do where an unknown one stands."""
    for part in place[:-1]:
        if isinstance(part, int):
            continue
        inner = _table(kind.model_fields[part].annotation)
        if inner is None:
            break
        kind = inner
    return f"it knows {', '.join(kind.model_fields)}"


def _table(annotation: Any) -> type[BaseModel] | None:
    """The model that a field holds, alone or several times."""
    kinds = [part for part in (annotation, *get_args(annotation)) if isinstance(part, type)]
    return next((part for part in kinds if issubclass(part, BaseModel)), None)


def read_toml(path: str | Path, kind: type[ModelT], assignments: Iterable[str] = ()) -> ModelT:
    """Read a run file; relative paths in it count from where the command runs.

    Args:
        path: the file.
        kind: what it says.
        assignments: keys set otherwise than in the file, as `assigned` takes them.

    Raises:
        ConfigError: not there, not TOML, or with keys that do not fit.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read run file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"run file {path} is not TOML: {error}") from error
    for assignment in assignments:
        values = assigned(values, assignment)
    return checked(kind, values, f"run file {path}")


def assigned(values: dict[str, Any], assignment: str) -> dict[str, Any]:
    """A run file's values with one key set otherwise.

    Args:
        values: as read from TOML.
        assignment: `key=value`: the key's tables with dots between them, a number for one of several tables of a
            name; the value as TOML has it, or else as text.

    Raises:
        ConfigError: not an assignment, or a key below what is no table.

    >>> assigned({"fit": {"steps": 5}}, "fit.steps=7")
    {'fit': {'steps': 7}}
    >>> assigned({"data": [{"raw": "a"}]}, "data.0.raw=b.zarr")
    {'data': [{'raw': 'b.zarr'}]}
    """
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {assignment} is no assignment; write it as fit.steps=500")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        value = text.strip()
    return _with(values, parts, value, assignment)  # type: ignore[no-any-return]  # a table stays a table


def _with(inside: Any, parts: list[str], value: Any, assignment: str) -> Any:
    if not parts:
        return value
    first, *rest = parts
    if isinstance(inside, dict):
        return {**inside, first: _with(inside.get(first, {}), rest, value, assignment)}
    if isinstance(inside, list) and first.isdecimal() and int(first) < len(inside):
        at = int(first)
        return [*inside[:at], _with(inside[at], rest, value, assignment), *inside[at + 1 :]]
    if isinstance(inside, list):
        raise ConfigError(f"--set {assignment}: there are {len(inside)} of these; name one by its number, from 0")
    raise ConfigError(f"--set {assignment}: {first!r} stands below a value that is no table; leave it out")


_WIDTH = 110


def as_toml(config: BaseModel) -> str:
    """A config as TOML, complete: each key after a comment that says what it does, defaults in the open.

    A key that is not set stands in a comment, as TOML has no word for nothing.
    """
    lines: list[str] = []
    for name, value in config:
        many = isinstance(value, tuple) and value and isinstance(value[0], BaseModel)
        for table in value if many else (value,):
            lines += ["", f"[[{name}]]" if many else f"[{name}]", *_table_lines(table)]
    return "\n".join(lines[1:]) + "\n"


def _table_lines(table: BaseModel) -> Iterator[str]:
    for name, value in table:
        told = type(table).model_fields[name].description
        for line in wrap(" ".join(told.split()), _WIDTH) if told else ():
            yield f"# {line}"
        yield f"# {name} is not set" if value is None else f"{name} = {_value_text(value)}"


def _value_text(value: Any) -> str:
    """A value as TOML writes it.

    >>> _value_text({"width": 16, "pool": (1, 2, 2)}), _value_text("a\\"b"), _value_text(True)
    ('{ width = 16, pool = [1, 2, 2] }', '"a\\\\"b"', 'true')
    """
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        inside = ", ".join(f"{_key_text(key)} = {_value_text(each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value_text, value))}]"
    return repr(value)


def _key_text(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key)
