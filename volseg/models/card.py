"""Metadata of a model file, readable without torch.

A model file is one `.safetensors`: an 8-byte length, a JSON header whose `__metadata__` holds the card, then the
weights. Nothing in it can run code.
"""

from __future__ import annotations

import json
from hashlib import blake2b
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from volseg.blocks import Footprint, ZyxFloat
from volseg.errors import ConfigError, ModelError
from volseg.models.registry import NETWORKS
from volseg.ops import Normalization

CARD_KEY = "volseg"
_MAX_HEADER_BYTES = 100 << 20
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
                    f"model {self.name!r} has no class {name!r}; choose from {', '.join(self.classes)} "
                    "(`volseg models import --classes` names them)"
                )
        return [self.classes.index(name) for name in classes]


class ModelHeader(BaseModel):
    """A model file's path, card and digest."""

    model_config = ConfigDict(frozen=True)

    path: str
    card: ModelCard
    digest: str
    """Digest of weights, architecture, normalisation and activation; independent of the path."""


def weights_digest(card: ModelCard, tensors: bytes | memoryview) -> str:
    """Digest of the function that a model computes; other fields of the card do not count."""
    identity = card.model_dump_json(include={"network", "arguments", "normalization", "activation", "classes"})
    digest = blake2b(identity.encode(), digest_size=16)
    digest.update(tensors)
    return digest.hexdigest()


def read_card(path: str | Path) -> ModelHeader:
    """Read and check a model file, without torch.

    Raises:
        ModelError: missing, a pickle, incomplete, changed since it was written, or not written by volseg.
    """
    return parse_model_file(Path(path), read_model_file(path))


def read_model_file(path: str | Path) -> bytes:
    """Read a file's bytes.

    Raises:
        ModelError: the file cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from error


def parse_model_file(path: Path, content: bytes) -> ModelHeader:
    """Parse and check the bytes of a model file; raises as `read_card`."""
    metadata, tensors = _split(path, content)
    try:
        card = ModelCard.model_validate_json(metadata[CARD_KEY])
        digest = metadata["digest"]
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
    if weights_digest(card, tensors) != digest:
        raise ModelError(f"{path} does not match its digest, so it has changed since it was written; copy it again")
    return ModelHeader(path=str(path.resolve()), card=card, digest=digest)


def _split(path: Path, content: bytes) -> tuple[dict[str, str], memoryview]:
    """Split a safetensors file into its metadata and the bytes of its tensors."""
    if content.startswith(_PICKLES):
        raise ModelError(
            f"{path} is a pickled PyTorch file, which could run code and is never loaded; "
            "convert its weights with `volseg models import`"
        )
    size = int.from_bytes(content[:8], "little")
    error = ModelError(f"{path} is not a complete .safetensors model file; copy it again")
    if len(content) < 8 or not 2 <= size <= min(_MAX_HEADER_BYTES, len(content) - 8):
        raise error
    try:
        header = json.loads(content[8 : 8 + size])
        metadata = header.pop("__metadata__", {})
        ends = [entry["data_offsets"][1] for entry in header.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise error from None
    if max(ends, default=0) != len(content) - 8 - size:
        raise error
    return metadata, memoryview(content)[8 + size :]
