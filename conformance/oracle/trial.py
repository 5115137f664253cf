"""What the clauses judge: a variant with its observation, joined once, and how a finding is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conformance.model import (
    CLAUSE_CLAIMS,
    CLAUSE_LEVEL,
    Clause,
    Finding,
    Level,
    Observation,
    Variant,
)
from conformance.oracle.account import Account, accounts
from conformance.oracle.files import Damage, damages
from conformance.oracle.losses import Loss, losses
from conformance.oracle.oom import Kills, kills
from conformance.oracle.scene import Scene, scenes

WEAKER = (Level.MUST, Level.SHOULD, Level.MAY, Level.SURVEY)
"""Strongest first."""
EVIDENCE = 12
"""Lines of evidence that a finding keeps at most, besides the path of the console log."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One arm with all that was worked out from it."""

    scene: Scene
    accounts: tuple[Account, ...]
    losses: tuple[Loss, ...]
    damages: tuple[Damage, ...]
    kills: Kills


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A variant and an observation that answers it."""

    variant: Variant
    observation: Observation
    acts: tuple[Act, ...]

    def finding(
        self,
        clause: Clause,
        scene: Scene | None,
        *,
        signature: str,
        expected: str,
        observed: str,
        level: Level = Level.MUST,
        step: str = "",
        evidence: Iterable[str] = (),
    ) -> Finding:
        """A finding at the weakest of its own level, the clause's and the case's."""
        levels = (level, CLAUSE_LEVEL.get(clause, Level.MUST), self.variant.level)
        return Finding(
            clause=clause,
            level=max(levels, key=WEAKER.index),
            expected=expected,
            observed=observed,
            claims=self._claims(clause),
            signature=signature,
            step=step,
            arm=scene.name if scene else ", ".join(act.scene.name for act in self.acts),
            evidence=(
                *[line for line in evidence if line][:EVIDENCE],
                *([scene.seen.console] if scene and scene.seen.console else []),
            ),
            documented_by=self.variant.expect.documented_by.get(clause, ""),
        )

    def _claims(self, clause: Clause) -> tuple[str, ...]:
        spoken = CLAUSE_CLAIMS[clause]
        return tuple(claim for claim in spoken if claim in self.variant.claims) or spoken[:1]


def trial(variant: Variant, observation: Observation) -> Trial:
    """Join what was asked and what was seen."""
    return Trial(
        variant=variant,
        observation=observation,
        acts=tuple(_act(scene) for scene in scenes(variant, observation)),
    )


def _act(scene: Scene) -> Act:
    found = accounts(scene)
    return Act(
        scene=scene,
        accounts=found,
        losses=tuple(loss for account in found for loss in losses(scene, account)),
        damages=damages(scene),
        kills=kills(scene),
    )
