"""What a model file says of itself, readable without torch.

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
_LONGEST_HEADER = 100 << 20
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


class ModelCard(BaseModel):
    """All that is known of a trained network but its weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    network: Annotated[str, AfterValidator(NETWORKS.check)]
    """Name in the registry."""
    arguments: dict[str, Any]
    """What the network was made with."""
    footprint: Footprint
    """Reach, stride, margin and smallest input, derived from the network when the file was written."""
    normalization: Normalization
    activation: Literal["sigmoid", "softmax"]
    classes: tuple[str, ...]
    """What each output channel stands for; a map is made of the one called `membrane`."""
    voxel_nm: ZyxFloat
    """Voxel size of the training data, (z, y, x) in nanometres."""
    parameters: int
    training: dict[str, Any] = Field(default_factory=dict)
    """Data, steps, settings and scores of the training."""
    license: str = "not stated"
    """Terms of the training data."""

    @property
    def membrane_channel(self) -> int:
        """The output channel that holds membrane.

        Raises:
            ConfigError: no class is called membrane.
        """
        return self.channels_of(("membrane",))[0]

    def channels_of(self, classes: tuple[str, ...]) -> list[int]:
        """The output channels that hold these classes.

        Raises:
            ConfigError: there is no such class.
        """
        for name in classes:
            if name not in self.classes:
                raise ConfigError(
                    f"model {self.name!r} has no class {name!r}; choose from {', '.join(self.classes)} "
                    "(`volseg models import --classes` names them)"
                )
        return [self.classes.index(name) for name in classes]


class ModelHeader(BaseModel):
    """A model file's card and the digest of what it computes."""

    model_config = ConfigDict(frozen=True)

    path: str
    card: ModelCard
    digest: str
    """Over weights, architecture, normalisation and activation: the same wherever the file lies."""


def weights_digest(card: ModelCard, tensors: bytes | memoryview) -> str:
    """Identify what a model computes, whatever its file or its training record say beside."""
    meaning = card.model_dump_json(include={"network", "arguments", "normalization", "activation", "classes"})
    digest = blake2b(meaning.encode(), digest_size=16)
    digest.update(tensors)
    return digest.hexdigest()


def read_card(path: str | Path) -> ModelHeader:
    """Read and check a model file, without torch.

    Raises:
        ModelError: not there, pickled, cut short, changed since it was written, or not made by volseg.
    """
    return header_of(Path(path), read_model_file(path))


def read_model_file(path: str | Path) -> bytes:
    """A file's bytes.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from error


def header_of(path: Path, content: bytes) -> ModelHeader:
    """Check the bytes of a model file; raises as `read_card`."""
    metadata, tensors = _split(path, content)
    try:
        card = ModelCard.model_validate_json(metadata[CARD_KEY])
        stated = metadata["digest"]
    except KeyError:
        raise ModelError(
            f"{path} holds weights without a volseg card, so network and normalisation are unknown; "
            "use a file that `volseg train` wrote, or make one of it with `volseg models import`"
        ) from None
    except ValidationError as error:
        first = error.errors()[0]
        cause = first.get("ctx", {}).get("error")
        if isinstance(cause, ConfigError):  # a name of a plug-in that is not installed
            raise ModelError(f"cannot load {path}: {cause}") from error
        where = ".".join(map(str, first["loc"]))
        raise ModelError(f"the card of {path} is not one this version reads ({where}: {first['msg']})") from error
    if weights_digest(card, tensors) != stated:
        raise ModelError(f"{path} has changed since it was written (its digest differs); copy it again from its source")
    return ModelHeader(path=str(path.resolve()), card=card, digest=stated)


def _split(path: Path, content: bytes) -> tuple[dict[str, str], memoryview]:
    """The metadata and the tensors' bytes of a safetensors file."""
    if content.startswith(_PICKLES):
        raise ModelError(
            f"{path} is a pickled PyTorch file, which could run code and is never loaded; "
            "make a .safetensors model file of its weights with `volseg models import`"
        )
    size = int.from_bytes(content[:8], "little")
    broken = ModelError(f"{path} is not a complete .safetensors model file; copy it again from its source")
    if len(content) < 8 or not 2 <= size <= min(_LONGEST_HEADER, len(content) - 8):
        raise broken
    try:
        header = json.loads(content[8 : 8 + size])
        metadata = header.pop("__metadata__", {})
        ends = [entry["data_offsets"][1] for entry in header.values()]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise broken from None
    if max(ends, default=0) != len(content) - 8 - size:
        raise broken
    return metadata, memoryview(content)[8 + size :]
