"""Metadata of a model file, readable without torch.

A model file is one `.safetensors`: an 8-byte length, a JSON header whose `__metadata__` holds the card, then the
weights. Nothing in it can run code.
"""

from __future__ import annotations

import json
from functools import partial
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from volseg.blocks import Footprint, ZyxFloat
from volseg.errors import ConfigError, ModelError
from volseg.models.registry import NETWORKS
from volseg.ops import Normalization
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

CARD_KEY = "volseg"
_MAX_HEADER_BYTES = 100 << 20
_PART_BYTES = 1 << 20
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class ModelCard(BaseModel):
    """Metadata of a trained network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    network: Annotated[str, AfterValidator(NETWORKS.check)]
    """Name in the registry."""
    arguments: dict[str, Any]
    """Arguments of the network's class."""
    footprint: Footprint
    """Reach, stride, margin and smallest input, derived from the network when the file was written."""
    normalization: Normalization
    activation: Literal["sigmoid", "softmax"]
    classes: tuple[str, ...]
    """Names of the output channels; a membrane map is the channel `membrane`."""
    voxel_nm: ZyxFloat
    """Voxel size of the training data, (z, y, x) in nanometres."""
    parameters: int
    training: dict[str, Any] = Field(default_factory=dict)
    """Data, steps, settings and scores of the training."""
    license: str = "not stated"
    """Terms of the training data."""

    @property
    def membrane_channel(self) -> int:
        """Output channel of membrane.

        Raises:
            ConfigError: the model has no class `membrane`.
        """
        return self.channels_of(("membrane",))[0]

    def channels_of(self, classes: tuple[str, ...]) -> list[int]:
        """Output channels of classes.

        Raises:
            ConfigError: the model has no such class.
        """
        for name in classes:
            if name not in self.classes:
                raise ConfigError(
                    f"model {self.name!r} has no class {name!r}{did_you_mean(name, self.classes)}; choose from "
                    f"{', '.join(self.classes)} (`volseg models import --classes` names them)"
                )
        return [self.classes.index(name) for name in classes]


class ModelHeader(BaseModel):
    """A model file's path, card and digest."""

    model_config = ConfigDict(frozen=True)

    path: str
    card: ModelCard
    digest: str
    """Digest of weights, architecture, normalisation and activation; independent of the path."""


def weights_digest(card: ModelCard, tensors: Iterable[bytes | memoryview]) -> str:
    """Digest of the function that a model computes; other fields of the card do not count.

    Args:
        card: of the model.
        tensors: the bytes of its weights as stored, in parts.
    """
    identity = card.model_dump_json(include={"network", "arguments", "normalization", "activation", "classes"})
    digest = blake2b(identity.encode(), digest_size=16)
    for part in tensors:
        digest.update(part)
    return digest.hexdigest()


def read_card(path: str | Path, *, verify: bool = False) -> ModelHeader:
    """Read a model file's card, without torch.

    Its weights are read only to verify them, or where the file states no digest. Loading the model verifies them too.

    Args:
        path: of the file.
        verify: also compare the weights with the digest.

    Raises:
        ModelError: missing, a pickle, incomplete, not written by volseg, or changed since (if that is verified).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _read(path, file, path.stat().st_size, verify=verify)
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from error


def read_model_file(path: str | Path) -> tuple[ModelHeader, bytes]:
    """Read and verify a whole model file; raises as `read_card`."""
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from error
    return _read(path, BytesIO(content), len(content), verify=True), content


def _read(path: Path, file: BinaryIO, size: int, *, verify: bool) -> ModelHeader:
    """Parse and check a model file of so many bytes."""
    metadata = _read_metadata(path, file, size)
    try:
        card = ModelCard.model_validate_json(metadata[CARD_KEY])
    except KeyError:
        raise ModelError(
            f"{path} holds weights without a volseg card, so network and normalisation are unknown; "
            "use a file that `volseg train` wrote, or convert it with `volseg models import`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):  # a name of a plug-in that is not installed
            raise ModelError(f"cannot load {path}: {cause}") from error
        field = ".".join(map(str, first["loc"]))
        raise ModelError(
            f"cannot read the card of {path} ({field}: {first['msg']}); use the version of volseg that wrote it"
        ) from error
    stated = metadata.get("digest")
    digest = stated if stated and not verify else weights_digest(card, iter(partial(file.read, _PART_BYTES), b""))
    if stated not in (None, digest):
        raise ModelError(f"{path} does not match its digest, so it has changed since it was written; copy it again")
    return ModelHeader(path=str(path.resolve()), card=card, digest=digest)


def _read_metadata(path: Path, file: BinaryIO, size: int) -> dict[str, str]:
    """Read the metadata of a safetensors file, and leave the file at its first tensor."""
    first = file.read(8)
    if first.startswith(_PICKLES):
        raise ModelError(
            f"{path} is a pickled PyTorch file, which could run code and is never loaded; "
            "convert its weights with `volseg models import`"
        )
    length = int.from_bytes(first, "little")
    error = ModelError(f"{path} is not a complete .safetensors model file; copy it again")
    if size < 8 or not 2 <= length <= min(_MAX_HEADER_BYTES, size - 8):
        raise error
    try:
        header = json.loads(file.read(length))
        metadata: dict[str, str] = header.pop("__metadata__", {})
        ends = [entry["data_offsets"][1] for entry in header.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise error from None
    if max(ends, default=0) != size - 8 - length:
        raise error
    return metadata
