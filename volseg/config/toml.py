"""Read and write run files (TOML); invalid values are refused in one line."""

from __future__ import annotations

import errno
import json
import re
import stat
import tomllib
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from volseg.errors import ConfigError
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_WIDTH = 110
_MAX_TEXT = 200
_MAX_BYTES, _MAX_DEPTH, _MAX_DOTS = 1 << 18, 32, 1000
"""Of a run file, of the tables and lists in it, and of a line, as tomllib takes the square of the dots of a key."""
ModelT = TypeVar("ModelT", bound=BaseModel)


def validate(kind: type[ModelT], values: dict[str, Any], where: str) -> ModelT:
    """Validate plain values as a config.

    Args:
        kind: the config class.
        values: as read from TOML or from options.
        where: origin of the values, for the message.

    Raises:
        ConfigError: names the first invalid key, its value and the valid ones.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        # A misspelt key is also a missing one: report the misspelt one.
        first = min(error.errors(), key=lambda detail: detail["type"] != "extra_forbidden")
        # A single [table] has no number for the user.
        is_single = isinstance(values.get(str(first["loc"][0])) if first["loc"] else None, dict)
        key = ".".join(str(part) for part in first["loc"] if not (is_single and isinstance(part, int)))
        if first["type"] == "extra_forbidden":
            keys = _keys(kind, first["loc"])
            hint = did_you_mean(str(first["loc"][-1]), keys)
            raise ConfigError(f"{where}: unknown key {_short(key)!r}{hint}; choose from {', '.join(keys)}") from None
        message = first["msg"].removeprefix("Value error, ")
        value = "" if first["type"] in ("missing", "value_error") else f" (given: {_short(repr(first['input']))})"
        if first["type"] == "literal_error":
            value += did_you_mean(str(first["input"]), re.findall("'([^']*)'", first["ctx"]["expected"]))
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{message}{value}") from None


def _short(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]} .."


def _keys(kind: type[BaseModel], path: tuple[int | str, ...]) -> tuple[str, ...]:
    """Valid keys of the table that holds the key of this path."""
    for part in path[:-1]:
        if isinstance(part, int):
            continue
        table = _table_class(kind.model_fields[part].annotation)
        if table is None:
            break
        kind = table
    return tuple(kind.model_fields)


def _table_class(annotation: Any) -> type[BaseModel] | None:
    """The model class of a field that holds one table or several."""
    classes = [part for part in (annotation, *get_args(annotation)) if isinstance(part, type)]
    return next((part for part in classes if issubclass(part, BaseModel)), None)


def read_toml(path: str | Path, kind: type[ModelT], assignments: Iterable[str] = (), what: str = "run file") -> ModelT:
    """Read a TOML file; relative paths in it are relative to the working directory.

    Args:
        path: the file.
        kind: the config class.
        assignments: overrides of keys, `key=value` as for `override`.
        what: the file is, for messages.

    Raises:
        ConfigError: the file does not exist, is not TOML, or has invalid keys or values.
    """
    if re.match(r"[a-z0-9]+:/", str(path)):  # a Path of a URL has lost a slash
        raise ConfigError(f"{what} {path} is a URL; copy it to a path and name that (the volumes in it may have URLs)")
    path = Path(path)
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe may never end
            raise OSError(errno.EINVAL, "it is not a file")
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        values = parse_toml(content)
    except OSError as error:
        raise ConfigError(f"cannot read {what} {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"{what} {path} is not TOML: {error}") from error
    for assignment in assignments:
        values = override(values, assignment)
    return validate(kind, values, f"{what} {path}")


def parse_toml(content: bytes) -> dict[str, Any]:
    """Parse TOML of any origin.

    Raises:
        ValueError: not TOML, too large or nested too deep, an integer of more than 64 bits, or a text with a NUL.

    >>> parse_toml(b"fit.steps = 5")
    {'fit': {'steps': 5}}
    """
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes")
    if max((line.count(b".") for line in content.splitlines()), default=0) > _MAX_DOTS:
        raise ValueError(f"a line has more than {_MAX_DOTS} dots")
    try:
        values = tomllib.loads(content.decode("utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level: list[Any] = [values]
    for _ in range(_MAX_DEPTH):
        tables = [value for value in level if isinstance(value, dict)]
        texts = [*level, *(key for table in tables for key in table)]
        if any(isinstance(text, str) and "\0" in text for text in texts):
            raise ValueError("a text holds a NUL character")
        if large := [n for n in level if isinstance(n, int) and not -(1 << 63) <= n < 1 << 63]:
            raise ValueError(f"the integer {str(large[0])[:20]}.. has more than 64 bits")
        lists = [value for value in level if isinstance(value, list)]
        level = [item for values in (*(table.values() for table in tables), *lists) for item in values]
    if level:
        raise ValueError(f"it is nested more than {_MAX_DEPTH} levels deep")
    return values


def override(values: dict[str, Any], assignment: str) -> dict[str, Any]:
    """Return the values of a run file with one key replaced.

    Args:
        values: as read from TOML.
        assignment: `key=value`; the key is a path with dots, with a number for one of several tables of a name; the
            value is TOML, or text if it is not valid TOML.

    Raises:
        ConfigError: not `key=value`, or a key below a value that is not a table.

    >>> override({"fit": {"steps": 5}}, "fit.steps=7")
    {'fit': {'steps': 7}}
    >>> override({"data": [{"raw": "a"}]}, "data.0.raw=b.zarr")
    {'data': [{'raw': 'b.zarr'}]}
    """
    key, equals, text = assignment.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise ConfigError(f"--set {assignment} is not KEY=VALUE, such as fit.steps=500")
    if len(parts) > _MAX_DEPTH:
        raise ConfigError(f"--set {assignment:.40}.. names a key more than {_MAX_DEPTH} tables deep")
    try:
        value = parse_toml(f"value = {text}".encode())["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        value = text.strip()
    except ValueError as error:
        raise ConfigError(f"--set {assignment:.40} cannot be read: {error}") from error
    return _replace(values, parts, value, assignment)  # type: ignore[no-any-return]  # a table stays a table


def _replace(node: Any, parts: list[str], value: Any, assignment: str) -> Any:
    if not parts:
        return value
    first, *rest = parts
    if isinstance(node, dict):
        return {**node, first: _replace(node.get(first, {}), rest, value, assignment)}
    if isinstance(node, list) and first.isdecimal() and int(first) < len(node):
        index = int(first)
        return [*node[:index], _replace(node[index], rest, value, assignment), *node[index + 1 :]]
    if isinstance(node, list):
        raise ConfigError(f"--set {assignment}: there are {len(node)} of these tables; name one by its number, from 0")
    raise ConfigError(f"--set {assignment}: {first!r} is below a value that is not a table; leave it out")


def as_toml(config: BaseModel) -> str:
    """Return a config as complete TOML, with a comment above each key that describes it.

    A key without a value is a comment, because TOML has no null.
    """
    lines: list[str] = []
    for name, value in config:
        is_array = isinstance(value, tuple) and value and isinstance(value[0], BaseModel)
        for table in value if is_array else (value,):
            lines += ["", f"[[{name}]]" if is_array else f"[{name}]", *_table_lines(table)]
    return "\n".join(lines[1:]) + "\n"


def _table_lines(table: BaseModel) -> Iterator[str]:
    for name, value in table:
        description = type(table).model_fields[name].description
        for line in wrap(" ".join(description.split()), _WIDTH) if description else ():
            yield f"# {line}"
        yield f"# {name} is not set" if value is None else f"{name} = {_toml_value(value)}"


def _toml_value(value: Any) -> str:
    """Return a value in TOML syntax.

    >>> _toml_value({"width": 16, "pool": (1, 2, 2)}), _toml_value("a\\"b"), _toml_value(True)
    ('{ width = 16, pool = [1, 2, 2] }', '"a\\\\"b"', 'true')
    """
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml_key(key)} = {_toml_value(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return repr(value)


def _toml_key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key)
