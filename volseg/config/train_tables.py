"""What a training is told: the tables of its run file.

Every field has the default that `volseg train --print-config` shows; unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

Score: TypeAlias = Literal["f1", "average_precision", "v_rand", "v_info"]

Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]
"""How often something happens: 0 never, 1 to every patch (or section, where it says so)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def _ranges(value: Any) -> Any:
    """One range may stand without the brackets around the list of ranges."""
    pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int) for v in value)
    return [value] if pair else value


Momentum: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""Share of a running mean that a step keeps."""

SectionRanges: TypeAlias = Annotated[tuple[tuple[int, int], ...], BeforeValidator(_ranges)]
"""Sections [first, stop): one range, or a list of them."""


def _patch(value: Any) -> Any:
    """A lone number is the side of a square of one section."""
    return (1, value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class DataSettings(_Frozen):
    """One labelled volume, and which of its sections are for what."""

    raw: str
    """Grey values: a Zarr volume, an HDF5 dataset (FILE.h5:DATASET), a TIFF, or a folder of sections."""
    labels: str
    """Ground truth of the same shape, in the same kinds of file."""
    membrane: Literal["zero", "nonzero", "boundaries", "probability"] = "zero"
    """Which labels are membrane: `zero` where cells carry ids or 255, `nonzero` for a membrane mask, `boundaries` for
    ids that touch: the voxels on either side of where two ids meet, and label 0. `probability` is a map that `volseg
    predict` made of sections without ground truth: what it is sure of is learned as if it were true."""
    boundary_width: PositiveInt = 2
    """How many voxels wide, in the section, `boundaries` are."""
    sure: tuple[Share, Share] = (0.3, 0.7)
    """Of a `probability` map: up to the first is no membrane, from the second on is; what lies between is ignored."""
    ignore: int | None = None
    """A label value whose voxels are neither learned from nor scored."""
    voxel_nm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel size (z, y, x) in nanometres; needed where the raw volume does not state it."""
    train: SectionRanges = Field(min_length=1)
    """Sections to train on."""
    validation: SectionRanges = ()
    """Sections on which the best step is selected; where no volume has any, the last step is kept."""
    weight: float = Field(default=1.0, gt=0)
    """How often patches are drawn from this volume, relative to its size."""
    license: str = "not stated"
    """Terms of the data; they travel with the model."""

    @model_validator(mode="after")
    def _sure_of_something(self) -> DataSettings:
        if self.sure[0] >= self.sure[1]:
            raise ValueError(f"sure {list(self.sure)} leaves nothing between; give two shares, the smaller one first")
        return self


class TargetSettings(_Frozen):
    """What the network learns to tell."""

    kind: Literal["membrane", "affinities"] = "membrane"
    """`affinities`: whether a voxel and its neighbour at each offset belong to one cell; labels are then ids."""
    offsets: tuple[tuple[int, int, int], ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    """Neighbours (z, y, x) of `affinities`, one output channel each."""


class NetworkSettings(_Frozen):
    """The network that is trained."""

    name: str = "fusionnet"
    arguments: dict[str, Any] = Field(default_factory=lambda: {"width": 16})
    normalization: Literal["fixed", "volume", "section"] = "section"
    start: str | None = None
    """A model file of the same network, whose weights are the first; by default they are drawn from sqrt(2 / N)."""


class PatchSettings(_Frozen):
    """What one step learns from."""

    size: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_patch)] = (1, 256, 256)
    """What a patch is scored on, voxels along (z, y, x), each a multiple of the network's stride; a lone number is the
    side of a square. The network may see more around it."""
    batch: PositiveInt = 4
    """Patches of one forward pass, in each process."""
    accumulate: PositiveInt = 1
    """Forward passes of one step; their gradients are averaged."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = "auto"
    """Processes that read and cut patches ahead of the device; 0: none. `auto` takes half of the cores, 4 at most."""


class AugmentationSettings(_Frozen):
    """How patches are varied, on the training device. Labels only ever move: no new value is made of two."""

    orientations: bool = True
    """One of the eight orientations of the section, by chance; 3-D networks also see the stack upside down."""
    elastic: Literal["none", "grid", "field"] = "grid"
    """`grid`: smooth deformation from random displacements on a coarse grid (U-Net); `field`: from a sparse vector
    field that is zero at the patch's edge (FusionNet)."""
    elastic_share: Share = 0.75
    elastic_points: int = Field(default=3, ge=2, le=64)
    """Points of the grid or field along y and x; the published ones are 3 (U-Net) and 12 (FusionNet). Of a field, the
    outermost stay still."""
    elastic_std: float = Field(default=10.0, ge=0)
    """Standard deviation of the displacements, in voxels along y and x; 10 is published with 3 points. Tissue turns
    over where it is much above a tenth of the distance between points: 2 for 12 points on 256 voxels."""
    brightness: float = Field(default=0.2, ge=0)
    """Grey values are shifted by up to this, in standard deviations of the image."""
    contrast: float = Field(default=0.2, ge=0, lt=1)
    """They are scaled by a factor from 1 - this to 1 / (1 - this)."""
    gamma: float = Field(default=0.2, ge=0, lt=1)
    """The exponent of the grey-value curve goes from 1 - this to 1 / (1 - this)."""
    noise: float = Field(default=0.1, ge=0)
    """Greatest standard deviation of Gaussian noise, in those of the image; on the raw patch only."""
    blur: float = Field(default=1.0, ge=0)
    """Greatest sigma of a Gaussian blur of the section, in voxels."""
    blur_share: Share = 0.1
    missing: Share = 0.0
    """Sections that are missing (uniform grey); only where a network sees several."""
    shading: Share = 0.0
    """Sections that are much too dark or too bright."""
    fold: Share = 0.0
    """Sections with a dark fold line, across which the image is displaced."""
    misalignment: Share = 0.0
    """Sections from which on the stack is shifted in y and x, labels with it; only where a network sees several."""
    misalignment_max: float = Field(default=10.0, ge=0)
    """Greatest shift, in voxels along y and x, rounded to whole ones."""
    defocus: Share = 0.0
    """Sections that are out of focus."""

    @model_validator(mode="after")
    def _field_has_inner_points(self) -> AugmentationSettings:
        if self.elastic == "field" and self.elastic_points < 3:
            raise ValueError("elastic_points 2 leaves a field nothing but its edge, which stays still; give 3 or more")
        return self


class LossSettings(_Frozen):
    """What is made small."""

    name: Literal["cross_entropy", "balanced", "dice", "focal", "mean_absolute"] = "cross_entropy"
    """`balanced`: cross entropy with each class weighted by the other's share of the batch. `dice`: 1 - the Dice
    coefficient of each class. `focal`: cross entropy that fades where the network is sure."""
    membrane_weight: float = Field(default=1.0, gt=0)
    """Weight of a membrane voxel against any other's; `dice` is balanced by nature and has none."""
    gamma: float = Field(default=2.0, ge=0)
    """Of `focal`: how fast what is sure fades."""
    weight_map: bool = False
    """Weigh each voxel by U-Net's map (its equation 2): class balance, and thin borders between cells."""
    weight_map_w0: float = Field(default=10.0, ge=0)
    weight_map_sigma: float = Field(default=5.0, gt=0)
    """In voxels."""


class OptimizerSettings(_Frozen):
    """How weights follow the gradient."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """Of `sgd`."""
    betas: tuple[Momentum, Momentum] = (0.9, 0.999)
    """Of `adam` and `adamw`."""
    clip: float = Field(default=1.0, ge=0)
    """Greatest norm of a step's gradient; longer ones are shortened to it. 0: as long as they are."""
    average: float = Field(default=0.998, ge=0, lt=1)
    """Share of the averaged weights that a step keeps; the averaged ones are validated and saved. 0: no averaging."""


class ScheduleSettings(_Frozen):
    """How the learning rate goes over the training: a linear rise, then one of these."""

    name: Literal["cosine", "polynomial", "step", "constant"] = "cosine"
    warm_up: Share = 0.03
    """Share of the training in which the rate rises to its full value."""
    power: float = Field(default=0.9, gt=0)
    """Of `polynomial`: the rate is (1 - share of the training after the warm-up)^power."""
    milestones: tuple[Share, ...] = (0.5, 0.75)
    """Of `step`: shares of the training at which the rate falls by `factor`."""
    factor: float = Field(default=0.1, gt=0, le=1)


class FitSettings(_Frozen):
    """How long it learns, and on what."""

    steps: PositiveInt = 2000
    minutes: float | None = Field(default=None, gt=0)
    """Stop after this time, should `steps` take longer; the schedule goes with whichever ends first."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    """Let torch.compile make the network faster, at the cost of a minute or so before the first step."""
    deterministic: bool = False
    """Use only algorithms that give the same bits each time, where the device has others."""
    seed: int = Field(default=0, ge=0, lt=2**63)


class ValidationSettings(_Frozen):
    """How steps are compared."""

    every: PositiveInt = 200
    """Steps from one validation to the next; the last step is always validated."""
    score: Score = "average_precision"
    """What the best step is best at."""
    orientations: Literal["one", "flips", "all"] = "one"
    """Views that are averaged, as in `volseg predict --orientations`."""
    patience: PositiveInt | None = None
    """Stop after so many validations without a better one."""


class TrainingSettings(_Frozen):
    """All tables that decide what is learned; `output` stands beside them."""

    data: tuple[DataSettings, ...] = Field(min_length=1)
    """A `[data]` table, or a `[[data]]` table for each volume."""
    target: TargetSettings = TargetSettings()
    network: NetworkSettings = NetworkSettings()
    patches: PatchSettings = PatchSettings()
    augmentation: AugmentationSettings = AugmentationSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    fit: FitSettings = FitSettings()
    validation: ValidationSettings = ValidationSettings()

    @model_validator(mode="before")
    @classmethod
    def _one_volume(cls, values: Any) -> Any:
        """A lone `[data]` table is a list of one."""
        if isinstance(values, dict) and isinstance(values.get("data"), dict):
            return {**values, "data": [values["data"]]}
        return values

    @model_validator(mode="after")
    def _no_affinities_of_maps(self) -> Self:
        """A map of membrane tells no two cells apart."""
        maps = [data.labels for data in self.data if data.membrane == "probability"]
        if self.target.kind == "affinities" and maps:
            raise ValueError(f'affinities need ids, and {maps[0]} is a map of membrane; learn target.kind = "membrane"')
        return self

    @model_validator(mode="after")
    def _scorable(self) -> Self:
        """V_rand and V_info are scores of membrane."""
        if self.target.kind == "affinities" and self.validation.score in ("v_rand", "v_info"):
            raise ValueError(
                f"validation.score {self.validation.score} scores membrane, not affinities; use f1 or average_precision"
            )
        return self
