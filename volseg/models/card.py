"""Metadata of a model file, readable without torch.

A model file is one `.safetensors`: an 8-byte length, a JSON header whose `__metadata__` holds the card, then the
weights. Nothing in it can run code.
"""

from __future__ import annotations

from functools import partial
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from volseg.blocks import Footprint, ZyxFloat, is_voxel_size
from volseg.errors import ConfigError, ModelError
from volseg.models.registry import NETWORKS
from volseg.models.tensor_header import MAX_PARAMETERS, read_header
from volseg.ops import Normalization
from volseg.text import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable

CARD_KEY = "volseg"
_PART_BYTES = 1 << 20
_MAX_SIZE = 1 << 16
"""Of an argument of a network, or of its reach, in voxels."""
_MAX_STRIDE = 1 << 8
_MAX_CLASSES = 1 << 10
_MAX_ARGUMENTS = 1 << 10
_MAX_OTHERS = 1 << 16
"""Values of a model file that are no parameters, beside as many running statistics as there are parameters."""


def _checked_footprint(footprint: Footprint) -> Footprint:
    for name, least, most in (
        ("reach_before", 0, _MAX_SIZE),
        ("reach_after", 0, _MAX_SIZE),
        ("stride", 1, _MAX_STRIDE),
        ("margin", 0, _MAX_SIZE),
        ("smallest", 1, _MAX_SIZE),
        ("context", 0, _MAX_SIZE),
    ):
        if not all(least <= n <= most for n in getattr(footprint, name)):
            raise ValueError(f"{name} is {getattr(footprint, name)!s:.60}, and must be from {least} to {most}")
    return footprint


def _checked_classes(classes: tuple[str, ...]) -> tuple[str, ...]:
    if not 0 < len(classes) <= _MAX_CLASSES or len(set(classes)) < len(classes) or not all(classes):
        raise ValueError(f"these must be 1 to {_MAX_CLASSES} different names")
    return classes


def _checked_voxel_size(size_nm: ZyxFloat) -> ZyxFloat:
    if not is_voxel_size(size_nm):
        raise ValueError(f"{size_nm} are not lengths of at least 0.1 nm")
    return size_nm


def _checked_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    waiting, count = list(arguments.items()), 0
    while waiting:
        name, value = waiting.pop()
        count += 1
        if count > _MAX_ARGUMENTS:
            raise ValueError(f"these are more than {_MAX_ARGUMENTS} values")
        if isinstance(value, dict | list):
            waiting += [(name, item) for item in (value.values() if isinstance(value, dict) else value)]
        elif isinstance(value, int | float) and not -_MAX_SIZE <= value <= _MAX_SIZE:
            raise ValueError(f"{name} is {value!s:.40}, and must be at most {_MAX_SIZE}")
    return arguments


class ModelCard(BaseModel):
    """Metadata of a trained network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    name: str
    network: Annotated[str, AfterValidator(NETWORKS.check)]
    """Name in the registry."""
    arguments: Annotated[dict[str, Any], AfterValidator(_checked_arguments)]
    """Arguments of the network's class."""
    footprint: Annotated[Footprint, AfterValidator(_checked_footprint)]
    """Reach, stride, margin and smallest input, derived from the network when the file was written."""
    normalization: Normalization
    activation: Literal["sigmoid", "softmax"]
    classes: Annotated[tuple[str, ...], AfterValidator(_checked_classes)]
    """Names of the output channels; a membrane map is the channel `membrane`."""
    voxel_nm: Annotated[ZyxFloat, AfterValidator(_checked_voxel_size)]
    """Voxel size of the training data, (z, y, x) in nanometres."""
    parameters: Annotated[int, Field(ge=0, le=MAX_PARAMETERS)]
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
        with path.open("rb") as file:
            size = path.stat().st_size
            _read(path, file, size, verify=False)  # what cannot be a model is not read into memory
            file.seek(0)
            content = file.read(size)
    except OSError as error:
        raise ModelError(f"cannot read model file {path}: {error.strerror}") from error
    return _read(path, BytesIO(content), len(content), verify=True), content


def _read(path: Path, file: BinaryIO, size: int, *, verify: bool) -> ModelHeader:
    """Parse and check a model file of so many bytes."""
    metadata, values = read_header(path, file, size)
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
        field = ".".join(map(str, first["loc"])) or "card"
        problem = first["msg"].removeprefix("Value error, ")
        raise ModelError(
            f"cannot read the card of {path} ({field}: {problem}); use the version of volseg that wrote it"
        ) from error
    if card.network in NETWORKS.builtins and not card.parameters <= values <= 2 * card.parameters + _MAX_OTHERS:
        raise ModelError(
            f"{path} holds {values} values for the {card.parameters} parameters of its card; copy it again"
        )
    stated = metadata.get("digest")
    digest = stated if stated and not verify else weights_digest(card, iter(partial(file.read, _PART_BYTES), b""))
    if stated not in (None, digest):
        raise ModelError(f"{path} does not match its digest, so it has changed since it was written; copy it again")
    return ModelHeader(path=str(path.resolve()), card=card, digest=digest)
