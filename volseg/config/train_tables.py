"""Tables of a training run file.

Every field has the default that `volseg train --print-config` shows; unknown keys are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

from volseg.config.base import FrozenModel
from volseg.registry import LOSSES, NORMALIZATIONS

Score: TypeAlias = Literal["f1", "average_precision", "v_rand", "v_info"]

Fraction: TypeAlias = Annotated[float, Field(ge=0, le=1)]

Decay: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
"""Fraction of a running mean that one update keeps."""


def _as_ranges(value: Any) -> Any:
    """Accept one range without the brackets around the list of ranges."""
    is_pair = isinstance(value, list | tuple) and len(value) == 2 and all(isinstance(v, int) for v in value)
    return [value] if is_pair else value


SectionRanges: TypeAlias = Annotated[tuple[tuple[int, int], ...], BeforeValidator(_as_ranges)]
"""Sections [first, stop): one range, or a list of them."""


def _as_patch_size(value: Any) -> Any:
    """Accept a single number as the side of a square in one section."""
    return (1, value, value) if isinstance(value, int) and not isinstance(value, bool) else value


class Table(FrozenModel):
    """Base of all tables; numbers are finite."""

    model_config = ConfigDict(allow_inf_nan=False)


class DataSettings(Table):
    """One labelled volume and the use of its sections."""

    raw: str
    """Grey values: a Zarr volume, an HDF5 dataset (FILE.h5:DATASET), a TIFF, or a folder of sections."""
    labels: str
    """Ground truth of the same shape, in the same kinds of file."""
    membrane: Literal["zero", "nonzero", "boundaries", "probability"] = "zero"
    """Which labels are membrane. `zero`: label 0; cells carry ids or 255. `nonzero`: any other label (a membrane mask).
    `boundaries`: label 0 and the voxels on both sides of a border between two ids. `probability`: a map that `volseg
    predict` wrote for sections without ground truth; voxels with a confident prediction serve as labels."""
    boundary_width: PositiveInt = 2
    """Width of `boundaries` within the section, in voxels."""
    probability_thresholds: tuple[Fraction, Fraction] = (0.3, 0.7)
    """For a `probability` map: up to the first value a voxel is background, from the second on membrane, and between
    them it is ignored."""
    axes: str | None = None
    """Order of the last axes of `raw`, if it is not z, y, x or not stated, such as "x,y,z"."""
    label_axes: str | None = None
    """The same of `labels`."""
    channel: str | int | None = None
    """Channel of `raw`, by name or number, if it has several."""
    ignore: int | None = None
    """Label value of voxels that are neither trained on nor scored, like labels below 0."""
    voxel_nm: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """Voxel size (z, y, x) in nanometres; required if the raw volume does not state it."""
    train: SectionRanges = Field(min_length=1)
    """Sections to train on."""
    validation: SectionRanges = ()
    """Sections that select the best step. If no volume has any, the last step is kept."""
    weight: float = Field(default=1.0, gt=0)
    """How often patches are drawn from this volume, relative to its size."""
    license: str = "not stated"
    """Licence of the data; it is saved in the model file."""

    @model_validator(mode="after")
    def _check_thresholds(self) -> Self:
        low, high = self.probability_thresholds
        if low >= high:
            raise ValueError(f"probability_thresholds {[low, high]} must increase; give the smaller value first")
        return self


class TargetSettings(Table):
    """Training target."""

    kind: Literal["membrane", "affinities"] = "membrane"
    """`affinities`: whether a voxel and its neighbour at each offset belong to one cell; labels are then ids."""
    offsets: tuple[tuple[int, int, int], ...] = ((-1, 0, 0), (0, -1, 0), (0, 0, -1))
    """Neighbours (z, y, x) for `affinities`, one output channel each."""


class NetworkSettings(Table):
    """Network to train."""

    name: str = "fusionnet"
    """A name that `volseg models` lists."""
    arguments: dict[str, Any] = Field(default_factory=lambda: {"width": 16})
    normalization: Annotated[str, AfterValidator(NORMALIZATIONS.check)] = "section"
    """`fixed`, `volume`, `section`, or the name of a plug-in."""
    start: str | None = None
    """File whose weights are loaded: a model of the same network, or of a coarser FCN for a finer one; or, for an FCN
    or a DeconvNet, the state dict of a VGG16 classifier with torchvision's names. By default weights are drawn with
    std sqrt(2 / N)."""


class PatchSettings(Table):
    """Training patches."""

    size: Annotated[tuple[PositiveInt, PositiveInt, PositiveInt], BeforeValidator(_as_patch_size)] = (1, 256, 256)
    """Part of a patch that enters the loss, in voxels (z, y, x), each a multiple of the network's stride; a single
    number is the side of a square. The network may see more around it."""
    batch: PositiveInt = 4
    """Patches in one forward pass, for each process."""
    accumulate: PositiveInt = 1
    """Forward passes in one step; their gradients are averaged."""
    workers: Literal["auto"] | Annotated[int, Field(ge=0, le=256)] = "auto"
    """Dataloader processes that read and cut patches; 0: none. `auto`: half of the CPU cores, at most 4."""


class AugmentationSettings(Table):
    """Augmentation of patches, on the training device. Labels move by whole voxels and are never interpolated."""

    orientations: bool = True
    """Random orientation of the section, one of eight; for 3-D networks also a random flip along z."""
    elastic: Literal["none", "grid", "field"] = "grid"
    """`grid`: smooth deformation from random displacements on a coarse grid (U-Net). `field`: from a sparse vector
    field that is zero at the edge of the patch (FusionNet)."""
    elastic_probability: Fraction = 0.75
    """Probability that a patch is deformed."""
    elastic_points: int = Field(default=3, ge=2, le=64)
    """Points of the grid or field along y and x; published: 3 (U-Net) and 12 (FusionNet). The outermost points of a
    field do not move."""
    elastic_std: float = Field(default=10.0, ge=0)
    """Standard deviation of the displacements, in voxels along y and x; published: 10 with 3 points. Much more than a
    tenth of the distance between points folds the tissue over itself: use 2 for 12 points on 256 voxels."""
    brightness: float = Field(default=0.2, ge=0)
    """Maximum shift of grey values, in standard deviations of the image."""
    contrast: float = Field(default=0.2, ge=0, lt=1)
    """Grey values are scaled by a factor from 1 - this to 1 / (1 - this)."""
    gamma: float = Field(default=0.2, ge=0, lt=1)
    """The exponent of the grey-value curve is from 1 - this to 1 / (1 - this)."""
    noise: float = Field(default=0.1, ge=0)
    """Maximum standard deviation of Gaussian noise, in standard deviations of the image; on the raw patch only."""
    blur: float = Field(default=1.0, ge=0)
    """Maximum sigma of a Gaussian blur of the section, in voxels."""
    blur_probability: Fraction = 0.1
    """Probability that a patch is blurred."""
    missing: Fraction = 0.0
    """Probability that a section is missing (uniform grey); only for networks that see several sections."""
    shading: Fraction = 0.0
    """Probability that a section is much too dark or too bright."""
    fold: Fraction = 0.0
    """Probability that a section has a dark fold line, across which the image is displaced."""
    misalignment: Fraction = 0.0
    """Probability that the stack, with its labels, is shifted in y and x from a section on; only for networks that see
    several sections."""
    misalignment_max: float = Field(default=10.0, ge=0)
    """Maximum shift along y and x, in voxels; shifts are whole numbers."""
    defocus: Fraction = 0.0
    """Probability that a section is out of focus."""

    @model_validator(mode="after")
    def _check_elastic_points(self) -> Self:
        if self.elastic == "field" and self.elastic_points < 3:
            raise ValueError(
                "elastic_points 2 leaves a field no inner points, and its edge does not move; give 3 or more"
            )
        return self


class LossSettings(Table):
    """Loss function."""

    name: Annotated[str, AfterValidator(LOSSES.check)] = "cross_entropy"
    """`balanced`: cross entropy with each class weighted by the other's fraction of the batch. `dice`: 1 - the Dice
    coefficient of each class. `focal`: cross entropy with less weight on confident voxels. `mean_absolute`:
    |p - target|. Or the name of a plug-in."""
    membrane_weight: float = Field(default=1.0, gt=0)
    """Weight of a membrane voxel relative to others; not used by `dice`, which is balanced by definition."""
    gamma: float = Field(default=2.0, ge=0)
    """For `focal`: exponent of the weight (1 - p)^gamma."""
    weight_map: bool = False
    """Weight each voxel by the U-Net paper's map (equation 2): class balance, and thin borders between cells."""
    weight_map_w0: float = Field(default=10.0, ge=0)
    weight_map_sigma: float = Field(default=5.0, gt=0)
    """In voxels."""


class OptimizerSettings(Table):
    """Optimizer and weight averaging."""

    name: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=1e-4, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)
    """For `sgd`."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """For `adam` and `adamw`."""
    clip: float = Field(default=1.0, ge=0)
    """Maximum norm of a step's gradient; 0: no clipping."""
    ema_decay: Decay = 0.998
    """Decay of the exponential moving average (EMA) of the weights, which is validated and saved; 0: no averaging."""


class ScheduleSettings(Table):
    """Learning-rate schedule: linear warm-up, then one of these."""

    name: Literal["cosine", "polynomial", "step", "constant"] = "cosine"
    warm_up: Fraction = 0.03
    """Fraction of the training in which the rate rises to its full value."""
    power: float = Field(default=0.9, gt=0)
    """For `polynomial`: the rate is (1 - fraction of the training after the warm-up)^power."""
    milestones: tuple[Fraction, ...] = (0.5, 0.75)
    """For `step`: fractions of the training at which the rate is multiplied by `factor`."""
    factor: float = Field(default=0.1, gt=0, le=1)


class FitSettings(Table):
    """Length, device and precision."""

    steps: PositiveInt = 2000
    minutes: float | None = Field(default=None, gt=0)
    """Stop after this time if `steps` takes longer; the schedule follows whichever ends first."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: bool = False
    """Speed up the network with torch.compile; takes about a minute before the first step."""
    deterministic: bool = False
    """Use deterministic algorithms only, if the device has them."""
    seed: int = Field(default=0, ge=0, lt=2**63)


class ValidationSettings(Table):
    """Selection of the best step."""

    every: PositiveInt = 200
    """Steps between validations; the last step is always validated."""
    score: Score = "average_precision"
    """Score that selects the best step."""
    orientations: Literal["one", "flips", "all"] = "one"
    """Orientations to average, as in `volseg predict --orientations`."""
    patience: PositiveInt | None = None
    """Stop after this many validations without a better score."""


class TrainingSettings(Table):
    """All tables that determine the trained network; `output` is apart."""

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
    def _data_as_list(cls, values: Any) -> Any:
        """Accept a single `[data]` table as a list of one."""
        if isinstance(values, dict) and isinstance(values.get("data"), dict):
            return {**values, "data": [values["data"]]}
        return values

    @model_validator(mode="after")
    def _check_target(self) -> Self:
        """Refuse labels and scores that affinities do not have."""
        if self.target.kind != "affinities":
            return self
        maps = [data.labels for data in self.data if data.membrane == "probability"]
        if maps:
            raise ValueError(f'affinities need ids, but {maps[0]} is a membrane map; use target.kind = "membrane"')
        if self.validation.score in ("v_rand", "v_info"):
            raise ValueError(
                f"validation.score {self.validation.score} needs membrane, not affinities; use f1 or average_precision"
            )
        return self
