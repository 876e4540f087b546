"""What a training is told: the tables of its run file."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DataSettings(_Frozen):
    """The volume that is learned from."""

    raw: str
    """Grey values: a Zarr volume, a TIFF, or a folder of sections."""
    labels: str
    """Ground truth of the same shape, in the same kinds of file."""
    membrane: Literal["zero", "nonzero"] = "zero"
    """Which labels are membrane: `zero` where cells carry ids or 255, `nonzero` for a membrane mask."""
    voxel_nm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel size (z, y, x) in nanometres; needed where the raw volume does not state it."""
    train: tuple[int, int]
    """Sections [first, stop) to train on."""
    validation: tuple[int, int] | None = None
    """Sections [first, stop) on which the best step is selected; without them the last step is kept."""
    license: str = "not stated"
    """Terms of the data; they travel with the model."""


class NetworkSettings(_Frozen):
    """The network that is trained."""

    name: str = "fusionnet"
    arguments: dict[str, Any] = Field(default_factory=lambda: {"width": 16})
    normalization: Literal["fixed", "volume", "section"] = "section"


class FitSettings(_Frozen):
    """How long and how fast it learns."""

    steps: int = Field(default=2000, ge=1)
    minutes: float | None = Field(default=None, gt=0)
    """Stop after this time, should `steps` take longer; the learning rate falls towards whichever ends first."""
    batch: int = Field(default=4, ge=1)
    patch: int = Field(default=256, ge=1)
    """Side of the square that a patch is scored on, in voxels; a multiple of the network's stride."""
    patch_sections: int = Field(default=1, ge=1)
    """Sections of a 3-D network's patch; a multiple of its stride along z."""
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    validate_every: int = Field(default=200, ge=1)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = Field(default=0, ge=0)

    @property
    def patch_zyx(self) -> tuple[int, int, int]:
        """What a patch is scored on, voxels along (z, y, x)."""
        return self.patch_sections, self.patch, self.patch
