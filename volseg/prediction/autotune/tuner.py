"""Chooses precision, halo and tile for each network of a run, by measurements on the workers."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, replace
from functools import partial
from math import prod
from typing import TYPE_CHECKING

from volseg.errors import ModelError
from volseg.prediction.autotune.guard import guard
from volseg.prediction.autotune.halo import HaloChoice, choose_halo, measure_halo
from volseg.prediction.autotune.precision import PrecisionLoss, measure_precision, next_precision
from volseg.prediction.autotune.tile import TileConfig, choose_tiles
from volseg.storage import ActivationEntry, HaloPoint, KindTile, ModelEntry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volseg.blocks import Tiling
    from volseg.cluster import Executor, Progress
    from volseg.config.tolerance import Tolerance
    from volseg.inference import Device, Precision
    from volseg.models import ModelCard
    from volseg.pipeline import Plan
    from volseg.prediction.autotune.probe import ProbeSpec

_MAX_ROUNDS = 6
"""Halo and tile are chosen in turn, at most so often."""


def tilings_of(plan: Plan, recorded: Sequence[ModelEntry] | None) -> list[tuple[Tiling, ...]]:
    """The tilings that each network may use: that of the record of a resumed run, or all of the plan."""
    if recorded is None:
        return [tuple(plan.tilings(member)) for member in range(len(plan.halos))]
    return [(replace(entry.tiling, core=plan.tile or entry.tile),) for entry in recorded]


def largest_batch(recorded: Sequence[ModelEntry] | None) -> int:
    """The largest batch of a recorded run's networks; 1 without a record."""
    return max((entry.batch for entry in recorded or ()), default=1)


@dataclass(frozen=True)
class TunedNetwork:
    """A network with its precision, the measured error of that, and its largest activation; None if not measured."""

    probe: ProbeSpec
    loss: PrecisionLoss | None = None
    activations: ActivationEntry | None = None


@dataclass(frozen=True)
class WorkerKind:
    """Workers that compute alike.

    Attributes:
        name: of the GPU, or `cpu` and its instruction set.
        device: of theirs.
        workers: names.
        free: bytes that each may use, of main memory and of its device.
    """

    name: str
    device: Device
    workers: tuple[str, ...]
    free: tuple[int, int]


@dataclass(frozen=True)
class Tuner:
    """Chooses precision, halo and tile for each network, and the tile for each kind of worker.

    Attributes:
        plan: the run's blocks.
        recorded: the networks of the run that is resumed; None for a new one.
        tolerance: of the halos to measure; None if they are given.
        identity: of the volume.
        kinds: of the workers, the most numerous first.
        executor: whose workers measure.
        progress: receives the results.
    """

    plan: Plan
    recorded: Sequence[ModelEntry] | None
    tolerance: Tolerance | None
    identity: str
    kinds: Sequence[WorkerKind]
    executor: Executor
    progress: Progress

    def tune_precision(self, probes: Sequence[ProbeSpec], *, may_lower: bool) -> list[TunedNetwork]:
        """Check the networks and measure the error of the precision; if volseg may, take a slower one where it fails.

        Raises:
            ModelError: a network returns NaN or infinity as trained.
            ConfigError: it does in the requested precision, or float16 leaves too little room.
            WorkerError: as optimised, it is not the network that was trained.
        """
        precision, lower = probes[0].engine.precision, partial(self._in_next_precision, probes)
        may_lower = may_lower and self.recorded is None and precision != "float32"
        self.progress.stage("checking networks")
        guarded = guard(probes, self.plan.network_grid, self.executor)
        if fault := next((fault for each in guarded if (fault := each.fault)), None):
            if not may_lower or isinstance(fault, ModelError):
                raise fault
            self.progress.note(f"{precision} is not used: {str(fault).partition('; use')[0]}")
            return lower()
        losses = self._losses(probes)
        too_large = [loss for loss in losses if loss and not loss.is_acceptable(precision)]
        if may_lower and (too_large or (precision == "float16" and None in losses)):  # it might overflow
            if too_large:
                self.progress.note(f"{precision} is not accurate enough here ({too_large[0]})")
            return lower()
        if too_large and self.recorded is None:
            self.progress.note(f"{precision} is less accurate than auto accepts: {too_large[0]}")
        for line in filter(None, (each.note for each in guarded)):
            self.progress.note(line)
        return [TunedNetwork(*each) for each in zip(probes, losses, [each.entry for each in guarded], strict=True)]

    def _losses(self, probes: Sequence[ProbeSpec]) -> list[PrecisionLoss | None]:
        """The error of each network's precision: that of the record, or measured."""
        if self.recorded is not None:
            return [PrecisionLoss(*e.precision_loss) if e.precision_loss else None for e in self.recorded]
        self.progress.stage("measuring precision")
        return measure_precision(probes, self.plan.network_grid, self.identity, self.executor, self.progress)

    def _in_next_precision(self, probes: Sequence[ProbeSpec]) -> list[TunedNetwork]:
        precision = next_precision(probes[0].engine.precision)
        self.progress.note(f"{precision} instead of {probes[0].engine.precision}")
        return self.tune_precision(_in_precision(probes, precision), may_lower=True)

    def model_entries(self, networks: Sequence[TunedNetwork], cards: Sequence[ModelCard]) -> tuple[ModelEntry, ...]:
        """Choose halo and tile of each network.

        Raises:
            MemoryPlanError: not even the smallest tile of a network fits.
        """
        probes = [network.probe for network in networks]
        if self.tolerance is not None:
            halos, tiles = self._tune_halos(probes, cards, self.tolerance)
        else:
            halos = [HaloChoice(halo, (), "") for halo in self.plan.halos]
            tiles = self._tune_tiles(probes, self.plan)
        main = self.kinds[0].name
        return tuple(
            ModelEntry(
                location=network.probe.model_file,
                name=card.name,
                digest=network.probe.digest,
                footprint=card.footprint,
                normalization=card.normalization.mode,
                halo=choice.halo,
                halo_curve=tuple(HaloPoint(**asdict(point)) for point in choice.curve),
                tile=tiles[main][at].core,
                batch=tiles[main][at].batch,
                kvoxel_s=tiles[main][at].kvoxel_s,
                compiled=tiles[main][at].compiled,
                kinds=_kind_tiles(tiles, at),
                precision_loss=astuple(network.loss) if network.loss else None,
                activations=network.activations,
                statistics=network.probe.statistics_digest,
            )
            for at, (network, card, choice) in enumerate(zip(networks, cards, halos, strict=True))
        )

    def _tune_tiles(self, probes: Sequence[ProbeSpec], plan: Plan) -> dict[str, tuple[TileConfig, ...]]:
        """The tile of each network, for each kind of worker: that of the record, or the fastest."""
        if self.recorded is None:
            self.progress.stage("measuring tiles")
        files, (first, *_) = [probe.model_file for probe in probes], probes
        # The tiles of a record are not measured again; that they fit the memory is checked.
        load = replace(first.load, batch=largest_batch(self.recorded)) if self.recorded else first.load
        found: dict[str, tuple[TileConfig, ...]] = {}
        for kind in self.kinds:
            entries = None if self.recorded is None else [entry.of_kind(kind.name) for entry in self.recorded]
            engine = None if self.recorded else replace(first.engine, device=kind.device)
            tiles: tuple[TileConfig, ...] = self.executor.run_on_one(
                choose_tiles, files, plan.network_grid, tilings_of(plan, entries), replace(load, device=kind.device),
                kind.free, engine, among=kind.workers,
            )  # fmt: skip
            if entries is not None:
                tiles = tuple(
                    replace(tile, batch=entry.batch, kvoxel_s=entry.kvoxel_s, compiled=entry.compiled)
                    for tile, entry in zip(tiles, entries, strict=True)
                )
            found[kind.name] = tiles
        return found

    def _tune_halos(
        self, probes: Sequence[ProbeSpec], cards: Sequence[ModelCard], tolerance: Tolerance
    ) -> tuple[list[HaloChoice], dict[str, tuple[TileConfig, ...]]]:
        """Halos and tiles that fit each other: a small tile is mostly border, and needs a larger halo."""
        plan = self.plan
        self.progress.stage("measuring halo")
        cores = [next(plan.tilings(member)).core for member in range(len(probes))]
        samples = [
            measure_halo(probe, plan.network_grid, core, self.identity, self.executor, self.progress)
            for probe, core in zip(probes, cores, strict=True)
        ]
        for _ in range(_MAX_ROUNDS):
            choices = [
                choose_halo(errors, tolerance, probe.footprint, core)
                for errors, probe, core in zip(samples, probes, cores, strict=True)
            ]
            tiles = self._tune_tiles(probes, plan.with_halos(tuple(choice.halo for choice in choices)))
            smallest = [min((tile.core for tile in own), key=prod) for own in zip(*tiles.values(), strict=True)]
            if smallest == cores:
                break
            cores = smallest
        else:
            reason = "exact: no tile and halo fit each other"
            choices = [HaloChoice(halo, (), reason) for halo in plan.halos]
            tiles = self._tune_tiles(probes, plan)
        for card, choice in zip(cards, choices, strict=True):
            self.progress.note(f"halo {','.join(map(str, choice.halo))} for {card.name}: {choice.reason}")
        return choices, tiles


def _kind_tiles(tiles: Mapping[str, Sequence[TileConfig]], at: int) -> tuple[KindTile, ...]:
    """How each kind runs a network, by its index; nothing if there is one kind only."""
    if len(tiles) == 1:
        return ()
    return tuple(
        KindTile(kind=kind, tile=own[at].core, batch=own[at].batch, compiled=own[at].compiled,
                 kvoxel_s=own[at].kvoxel_s)
        for kind, own in tiles.items()
    )  # fmt: skip


def _in_precision(probes: Sequence[ProbeSpec], precision: Precision) -> list[ProbeSpec]:
    return [
        replace(probe, engine=replace(probe.engine, precision=precision), load=replace(probe.load, precision=precision))
        for probe in probes
    ]
