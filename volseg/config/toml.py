"""Read and write run files (TOML); invalid values are refused in one line."""

from __future__ import annotations

import json
import re
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
            raise ConfigError(f"{where}: unknown key {key!r}{hint}; choose from {', '.join(keys)}") from None
        message = first["msg"].removeprefix("Value error, ")
        value = "" if first["type"] in ("missing", "value_error") else f" (given: {first['input']!r})"
        if first["type"] == "literal_error":
            value += did_you_mean(str(first["input"]), re.findall("'([^']*)'", first["ctx"]["expected"]))
        raise ConfigError(f"{where}: {key + ': ' if key else ''}{message}{value}") from None


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


def read_toml(path: str | Path, kind: type[ModelT], assignments: Iterable[str] = ()) -> ModelT:
    """Read a run file; relative paths in it are relative to the working directory.

    Args:
        path: the file.
        kind: the config class.
        assignments: overrides of keys, `key=value` as for `override`.

    Raises:
        ConfigError: the file does not exist, is not TOML, or has invalid keys or values.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read run file {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"run file {path} is not TOML: {error}") from error
    for assignment in assignments:
        values = override(values, assignment)
    return validate(kind, values, f"run file {path}")


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
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        value = text.strip()
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
