"""Records that are stored as JSON with a checksum, and known by a digest."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Self

from pydantic import ValidationError
from xxhash import xxh3_64_hexdigest

from volseg.config.base import FrozenModel

if TYPE_CHECKING:
    from collections.abc import Mapping

CHECKSUM = "checksum"
"""Name of the checksum among the attributes."""


class CheckedRecord(FrozenModel):
    """A record."""

    @property
    def digest(self) -> str:
        """Digest of this record."""
        return blake2b(self.model_dump_json().encode(), digest_size=8).hexdigest()

    def to_attributes(self) -> dict[str, Any]:
        """The record as attributes, with a checksum of them."""
        attributes = self.model_dump(mode="json")
        return attributes | {CHECKSUM: checksum(attributes)}

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any]) -> Self:
        """The record of some attributes.

        Raises:
            ValueError: they are no record (a `ValidationError`), or were changed since they were written.
        """
        values = dict(attributes)
        if values.pop(CHECKSUM, None) != checksum(values):
            raise ValueError("it was changed since it was written")
        return cls.model_validate_json(json.dumps(values))


def reason_of(error: Exception) -> str:
    """Why a record cannot be read, in one line: of an invalid one, its first invalid field."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def checksum(attributes: Mapping[str, Any]) -> str:
    """Checksum of attributes, without that itself."""
    return xxh3_64_hexdigest(json.dumps(attributes, sort_keys=True, separators=(",", ":")).encode())
