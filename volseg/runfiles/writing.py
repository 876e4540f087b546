"""A run file with every key in it, and what each is for."""

from __future__ import annotations

import json
from textwrap import wrap
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

_WIDTH = 110


def as_toml(config: BaseModel) -> str:
    """A config as TOML, complete: each key after a comment that says what it does, defaults in the open.

    A key that is not set stands in a comment, as TOML has no word for nothing.
    """
    lines: list[str] = []
    for name, value in config:
        many = isinstance(value, tuple) and value and isinstance(value[0], BaseModel)
        for table in value if many else (value,):
            lines += ["", f"[[{name}]]" if many else f"[{name}]", *_table(table)]
    return "\n".join(lines[1:]) + "\n"


def _table(table: BaseModel) -> Iterator[str]:
    for name, value in table:
        told = type(table).model_fields[name].description
        for line in wrap(" ".join(told.split()), _WIDTH) if told else ():
            yield f"# {line}"
        yield f"# {name} is not set" if value is None else f"{name} = {_text(value)}"


def _text(value: Any) -> str:
    """A value as TOML writes it.

    >>> _text({"width": 16, "pool": (1, 2, 2)}), _text("a\\"b"), _text(True)
    ('{ width = 16, pool = [1, 2, 2] }', '"a\\\\"b"', 'true')
    """
    if isinstance(value, bool | str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        inside = ", ".join(f"{_key(key)} = {_text(each)}" for key, each in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_text, value))}]"
    return repr(value)


def _key(key: str) -> str:
    bare = key.replace("_", "").replace("-", "")
    return key if bare.isascii() and bare.isalnum() else json.dumps(key)
