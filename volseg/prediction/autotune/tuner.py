"""What each network of a run is run with, measured on the workers: its precision, its halo, its tile."""

from __future__ import annotations

from dataclasses import asdict, astuple, dataclass, replace
from typing import TYPE_CHECKING

from volseg.prediction.autotune.halo import HaloChoice, choose_halo, measure_halo
from volseg.prediction.autotune.precision import PrecisionLoss, measure_rounding, slower
from volseg.prediction.autotune.tile import TileConfig, choose_tiles
from volseg.storage import HaloPoint, ModelEntry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from volseg.blocks import Tiling
    from volseg.cluster import Cluster, Progress
    from volseg.config.tolerance import Tolerance
    from volseg.inference import Precision
    from volseg.models import ModelCard
    from volseg.pipeline import Plan
    from volseg.prediction.autotune.probe import ProbeSpec

_ROUNDS = 6
"""How often halo and tile are chosen after one another."""


def tilings_of(plan: Plan, recorded: Sequence[ModelEntry] | None) -> list[tuple[Tiling, ...]]:
    """How each network may cut blocks: as in the record of a run that goes on, or any way that the plan allows."""
    if recorded is None:
        return [tuple(plan.tilings(number)) for number in range(len(plan.halos))]
    return [(replace(was.tiling, core=plan.tile or was.tile),) for was in recorded]


def largest_batch(recorded: Sequence[ModelEntry] | None) -> int:
    """The most tiles that a network of a run takes at once; 1 where none is recorded."""
    return max((was.batch for was in recorded or ()), default=1)


@dataclass(frozen=True)
class Network:
    """One network of a run, and what its precision was found to cost; None where nothing was measured."""

    sampled: ProbeSpec
    rounding: PrecisionLoss | None = None


@dataclass(frozen=True)
class Tuner:
    """A run whose networks are made ready.

    Attributes:
        plan: the run's blocks.
        recorded: what the run that goes on was begun with; None for a new one.
        tolerance: of halos that are to be measured; None where they are given.
        identity: of the volume.
        cluster: whose workers measure.
        progress: told what is found.
    """

    plan: Plan
    recorded: Sequence[ModelEntry] | None
    tolerance: Tolerance | None
    identity: str
    cluster: Cluster
    progress: Progress

    def rounded(self, sampled: Sequence[ProbeSpec], *, may_lower: bool) -> list[Network]:
        """Measure what the precision costs; where that is too much, and it was volseg's choice, take a slower one."""
        if self.recorded is not None:
            known = [PrecisionLoss(*was.rounding) if was.rounding else None for was in self.recorded]
            return [Network(each, found) for each, found in zip(sampled, known, strict=True)]
        found = measure_rounding(sampled, self.plan.grid, self.identity, self.cluster, self.progress)
        engine = sampled[0].engine
        worse = [each for each in found if each and not each.within(engine.precision)]
        if engine.precision == "float16" and may_lower and None in found and not worse:
            return self.rounded(_in_precision(sampled, "bfloat16"), may_lower=may_lower)  # it might overflow
        if not worse:
            return [Network(each, rounding) for each, rounding in zip(sampled, found, strict=True)]
        if not may_lower:
            self.progress.note(f"{engine.precision} rounds more than auto would let it: {worse[0]}")
            return [Network(each, rounding) for each, rounding in zip(sampled, found, strict=True)]
        precision = slower(engine.precision, engine.device)
        self.progress.note(f"{engine.precision} would round too much here ({worse[0]}): {precision} instead")
        return self.rounded(_in_precision(sampled, precision), may_lower=may_lower)

    def entries(self, networks: Sequence[Network], cards: Sequence[ModelCard]) -> tuple[ModelEntry, ...]:
        """Choose halo and tile of each network.

        Raises:
            MemoryPlanError: not even the smallest tile of a network fits.
        """
        sampled = [network.sampled for network in networks]
        if self.tolerance is not None:
            choices, tiles = self._measured(sampled, cards, self.tolerance)
        else:
            choices = [HaloChoice(halo, (), "") for halo in self.plan.halos]
            tiles = self._tiles(sampled, self.plan)
        return tuple(
            ModelEntry(
                location=network.sampled.model_file,
                name=card.name,
                digest=network.sampled.digest,
                footprint=card.footprint,
                normalization=card.normalization.mode,
                halo=choice.halo,
                halo_curve=tuple(HaloPoint(**asdict(point)) for point in choice.curve),
                tile=tile.core,
                batch=tile.batch,
                kvoxel_s=tile.kvoxel_s,
                compiled=tile.compiled,
                rounding=astuple(network.rounding) if network.rounding else None,
                statistics=network.sampled.statistics,
            )
            for network, card, choice, tile in zip(networks, cards, choices, tiles, strict=True)
        )

    def _tiles(self, sampled: Sequence[ProbeSpec], plan: Plan) -> tuple[TileConfig, ...]:
        """The tile of each network: that of the record, or the fastest."""
        files, (first, *_) = [each.model_file for each in sampled], sampled
        if self.recorded is not None:
            load = replace(first.load, batch=largest_batch(self.recorded))
            asked = tilings_of(plan, self.recorded)
            again: tuple[TileConfig, ...] = self.cluster.on_one(choose_tiles, files, plan.grid, asked, load, first.free)
            pairs = zip(again, self.recorded, strict=True)
            return tuple(
                replace(tile, batch=was.batch, kvoxel_s=was.kvoxel_s, compiled=was.compiled) for tile, was in pairs
            )
        made: tuple[TileConfig, ...] = self.cluster.on_one(
            choose_tiles, files, plan.grid, tilings_of(plan, None), first.load, first.free, first.engine
        )
        return made

    def _measured(
        self, sampled: Sequence[ProbeSpec], cards: Sequence[ModelCard], tolerance: Tolerance
    ) -> tuple[list[HaloChoice], tuple[TileConfig, ...]]:
        """Halos that fit the tiles, and tiles that fit the halos: a small tile is mostly border, needs more halo."""
        plan = self.plan
        cores = [next(plan.tilings(number)).core for number in range(len(sampled))]
        measured = [
            measure_halo(each, plan.grid, core, self.identity, self.cluster, self.progress)
            for each, core in zip(sampled, cores, strict=True)
        ]
        for _ in range(_ROUNDS):
            choices = [
                choose_halo(found, tolerance, each.footprint, core)
                for found, each, core in zip(measured, sampled, cores, strict=True)
            ]
            tiles = self._tiles(sampled, plan.with_halos(tuple(choice.halo for choice in choices)))
            if [tile.core for tile in tiles] == cores:
                break
            cores = [tile.core for tile in tiles]
        else:
            why = "exact: no tile and halo were found that fit together"
            choices = [HaloChoice(halo, (), why) for halo in plan.halos]
            tiles = self._tiles(sampled, plan)
        for card, choice in zip(cards, choices, strict=True):
            self.progress.note(f"halo {','.join(map(str, choice.halo))} for {card.name}: {choice.reason}")
        return choices, tiles


def _in_precision(sampled: Sequence[ProbeSpec], precision: Precision) -> list[ProbeSpec]:
    return [
        replace(each, engine=replace(each.engine, precision=precision), load=replace(each.load, precision=precision))
        for each in sampled
    ]
