"""What a worker found of a network before its first block, and what may not be run so. Loads no torch."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import TYPE_CHECKING

from volseg.errors import ConfigError, ModelError, NotFiniteError, VolsegError, WorkerError

if TYPE_CHECKING:
    from volseg.inference.settings import Precision

MAX_VALUES: dict[Precision, float] = {"float32": 3.4028235e38, "bfloat16": 3.3895314e38, "float16": 65504.0}
MIN_HEADROOM = 8.0
"""Of float16: the largest activation may be larger elsewhere in the volume."""
MIN_TOLERANCE: dict[Precision, float] = {"float32": 1e-3, "bfloat16": 2**-7, "float16": 2**-10}
"""Relative error that is always tolerated: what rounding makes of a network whose activations nearly cancel out."""
MAX_ERROR_RATIO = 3.0
"""Error of the ready network over that of the trained one in the same precision; 0.3 to 2.2 over the networks of the
tests."""


@dataclass(frozen=True, slots=True)
class NetworkCheck:
    """What a worker found.

    Attributes:
        kind: of the worker, with its precision.
        precision: of the run.
        largest: magnitude of an activation in that precision.
        layer: that has it.
        not_finite: first layer with NaN or infinity in that precision; empty if there is none.
        not_finite_float32: likewise of the network as trained, in float32.
        error: of the ready network's output against float32, relative (root mean square of both).
        tolerance: of that error.
    """

    kind: str
    precision: Precision
    largest: float
    layer: str
    not_finite: str
    not_finite_float32: str
    error: float
    tolerance: float

    @property
    def headroom(self) -> float:
        """How many times larger than the largest activation, or 1, the largest number of the precision is."""
        return MAX_VALUES[self.precision] / max(self.largest, 1.0)

    def fault(self, model: str) -> VolsegError | None:
        """Why the network may not be run so; None if it may.

        A ModelError if no precision helps, a ConfigError if another does, a WorkerError if this kind of worker
        computes something else than it should.
        """
        precision, other, sample = self.precision, _other_precisions(self.precision), "on a sample of this volume"
        if self.not_finite_float32:
            return ModelError(
                f"{model}: {sample} {self.not_finite_float32} is NaN or infinite, in float32 as trained; take an "
                "earlier model of the training"
            )
        if self.not_finite and precision != "float32":
            return ConfigError(
                f"{model}: {sample} {self.not_finite} is NaN or infinite in {precision}, and no layer is in float32; "
                f"use {other}"
            )
        if precision == "float16" and self.headroom < MIN_HEADROOM:
            return ConfigError(
                f"{model}: {sample} the largest activation is {self.largest:,.0f} ({self.layer}); float16 ends at "
                f"65,504, {self.headroom:.2g} times as much, and {MIN_HEADROOM:g} times are needed; use {other}"
            )
        if self.not_finite or self.error > self.tolerance:
            is_finite = not self.not_finite and isfinite(self.error)
            figures = f"is off by {self.error:.2g} of its size, where {self.tolerance:.2g} is accepted"
            return WorkerError(
                f"{model}: as optimised on {self.kind}, the network's output "
                f"{figures if is_finite else 'is NaN or infinite'}; leave out this worker, whose kernels or memory are "
                "at fault, or try another --precision"
            )
        return None


def not_finite(layer: str | None, in_float32: str | None, precision: Precision) -> VolsegError:
    """Why an output in the run is NaN or infinite, and what helps.

    Args:
        layer: the first that is so, without fused layers; empty if none is, None if memory did not suffice to see.
        in_float32: likewise, of the network as trained in float32.
        precision: of the run.
    """
    if layer is None:
        return NotFiniteError("memory did not suffice to find the layer")
    if not layer:
        return WorkerError("the output is NaN or infinite only with fused layers: a kernel of this worker is at fault")
    first = f"{layer} is the first layer with NaN or infinity"
    if precision == "float32" or in_float32:
        return NotFiniteError(f"{first}, in float32 as in any precision; take another model")
    if in_float32 is None:
        return NotFiniteError(f"{first} in {precision}; memory did not suffice to try float32")
    return NotFiniteError(f"{first} in {precision}, and none is in float32; use {_other_precisions(precision)}")


def _other_precisions(precision: Precision) -> str:
    return "--precision bfloat16 or float32" if precision == "float16" else "--precision float32"
