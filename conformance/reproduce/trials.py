"""What the scripts of the published deviations say, held against what the suite said. Pure.

A trial is one script on one kernel. Its outcome is a line of results/reproduced.tsv, appended when it is
known, so that whoever goes on later need not run it again, as long as the script does the same.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

from conformance import tsv
from conformance.known import Known
from conformance.model import Clause, Status, Value, Variant, Verdict
from conformance.reproduce.script import JUDGED, script
from conformance.reproduce.shortage import Inexpressible

PASSED, FAILED, UNABLE = 0, 1, 77
"""Exit statuses of a script."""

AGREES, CHANCE, UNTOLD, DISAGREES = "agrees", "not this time", "cannot tell", "disagrees"
GOOD = (AGREES, CHANCE)
_SAME = {
    # What was neither stored nor told, and what somebody else's data stands for, a shell finds by
    # reading back what was acknowledged.
    Clause.ERROR_SURFACED: Clause.ACKNOWLEDGED_READABLE,
    Clause.NO_FOREIGN_DATA: Clause.ACKNOWLEDGED_READABLE,
}


_ASIDE = re.compile(
    r"""^(?:
        \ *\#.*                                                      # comments, and the head
        | (?:cleanup|later|detach)\(\)\ \{(?:\ .*\}|\n(?:.*\n)*?\})  # the functions that clean up
        | \ *later\ .* | undo= | trap\ .* |                         # what is undone, and when
    )\n""",
    re.MULTILINE | re.VERBOSE,
)
_ELSE = re.compile(
    r"""\s*\|\|\s*(?:unable\ (?:"[^"\n]*"|'[^'\n]*') | \{\ echo\ "CANNOT\ TELL.*\})""", re.VERBOSE
)
"""How a line ends of which nothing is run on unless it succeeds."""


def deeds(text: str) -> str:
    """What a script does to the kernel and how it judges: its text without how it gives up and cleans up.

    Left out are comments, what is undone at its end, traps, and ``|| unable "..."`` at a command's end. To
    take such an end away changes no outcome but "cannot tell". To add one could, where the command had
    failed; what such a script said would have agreed with the suite by accident.
    """
    return _ELSE.sub("", _ASIDE.sub("", text))


class Trial(Value):
    """One script on one kernel, and what the suite said there."""

    variant: Variant
    arm: str = ""
    """Of a case that compares several, which one the script is of."""
    kernel: str
    release: str
    status: Status
    clauses: tuple[str, ...] = ()
    may: tuple[str, ...] = ()
    """Further clauses that a script may name: of advisories, and of the rows of known deviations."""
    by_chance: tuple[str, ...] = ()
    """Clauses that the suite, too, sees violated in some runs only, by those rows."""
    chance: bool = False
    """Whether all that the suite saw is so."""
    text: str

    @property
    def name(self) -> str:
        """Which script it is."""
        return f"{self.variant.id} --arm {self.arm}" if self.arm else self.variant.id

    @property
    def id(self) -> str:
        """Its name, as a test's."""
        return f"{self.name}@{self.kernel}"

    @property
    def digest(self) -> str:
        """Changes when what the script does to the kernel does, or how it judges: see ``deeds``."""
        return hashlib.sha256(deeds(self.text).encode()).hexdigest()[:12]


class Refusal(Value):
    """A variant that deviates and has no script, and why."""

    variant: Variant
    kernels: tuple[str, ...]
    part: str
    why: str


class Outcome(Value):
    """What a script said: a line of the file."""

    variant: str
    kernel: str
    release: str
    suite: str
    script: str
    clauses: str
    seconds: float
    digest: str


def trials(
    variants: Iterable[Variant], history: Mapping[str, Sequence[Verdict]], rows: Sequence[Known]
) -> tuple[tuple[Trial, ...], tuple[Refusal, ...]]:
    """Of each variant that deviates somewhere: its script on each kernel that it failed or passed on.

    In the order in which they are best run.
    """
    found: list[Trial] = []
    refused: list[Refusal] = []
    for variant in variants:
        mine = [v for v in history.get(variant.case, ()) if v.values == variant.values]
        failing = [verdict for verdict in mine if verdict.status is Status.FAIL]
        if not failing:
            continue
        made: list[Trial] = []
        why: list[Inexpressible] = []
        for arm in _arms(variant, failing):
            try:
                text = script(variant, arm=arm)
            except Inexpressible as error:
                why.append(error)
                continue
            judged = [verdict for verdict in mine if verdict.status in (Status.FAIL, Status.PASS)]
            of = (_trial(variant, arm, verdict, rows, text) for verdict in judged)
            made += [trial for trial in of if trial is not None]
        found += made
        if not made:
            kernels = tuple(verdict.kernel for verdict in failing)
            part, told = why[0].part, why[0].why
            refused.append(Refusal(variant=variant, kernels=kernels, part=part, why=told))
    return _ordered(found), tuple(refused)


def _ordered(found: Sequence[Trial]) -> tuple[Trial, ...]:
    """Every script on one kernel first, then on the others that fail, then on those that pass.

    Within that by kernel, whose scripts can share a machine. Whoever runs out of time has met them all.
    """
    first: dict[str, Trial] = {}
    for trial in found:
        if trial.status is Status.FAIL:
            first.setdefault(trial.name, trial)

    def rank(trial: Trial) -> tuple[int, str]:
        if trial is first.get(trial.name):
            return 0, trial.kernel
        return (1 if trial.status is Status.FAIL else 2), trial.kernel

    return tuple(sorted(found, key=rank))


def _arms(variant: Variant, failing: Sequence[Verdict]) -> tuple[str, ...]:
    """The arms that deviate, apart from being unlike each other; ``""`` where there is one."""
    if len(variant.arms) == 1:
        return ("",)
    told = {one.arm for verdict in failing for one in verdict.deviations}
    mine = tuple(arm.name for arm in variant.arms)
    return tuple(name for name in mine if name in told) or mine[:1]


def _trial(
    variant: Variant, arm: str, verdict: Verdict, rows: Sequence[Known], text: str
) -> Trial | None:
    """None: the verdict is on other arms."""
    telling = [row for row in rows if row.covers(verdict)]
    mine = [one for one in verdict.deviations if not arm or one.arm == arm]
    if verdict.status is Status.FAIL and not mine:
        return None
    told = [[row for row in telling if row.tells_of(one)] for one in mine]
    # A script waits for longer than the suite: for the kernel's own word on a task that is blocked.
    late = [Clause.KERNEL_SOUND] if any(one.clause is Clause.BOUNDED for one in mine) else []
    return Trial(
        variant=variant,
        arm=arm,
        kernel=verdict.kernel,
        release=verdict.release,
        status=verdict.status,
        clauses=tuple(dict.fromkeys(one.clause.value for one in mine)),
        may=tuple(
            dict.fromkeys(
                [one.clause.value for one in verdict.advisories]
                + [row.clause.value for row in telling]
                + [clause.value for clause in late]
            )
        ),
        by_chance=tuple(dict.fromkeys(row.clause.value for row in telling if row.sometimes)),
        chance=bool(told) and all(of and all(row.sometimes for row in of) for of in told),
        text=text,
    )


def word(trial: Trial, status: int, clauses: Sequence[str]) -> str:
    """Whether the script says what the suite said. ``clauses``: those that it found violated."""
    said, by_chance = _as_seen(clauses), _as_seen(trial.by_chance)
    if trial.status is Status.PASS:
        if status == FAILED:
            return CHANCE if said and said <= by_chance else DISAGREES
        return {PASSED: AGREES, UNABLE: UNTOLD}.get(status, DISAGREES)
    if status == FAILED:
        seen = _as_seen(trial.clauses) | by_chance
        return AGREES if said & seen and said <= seen | _as_seen(trial.may) else DISAGREES
    if trial.chance:
        return CHANCE
    return UNTOLD if status == UNABLE else DISAGREES


def _as_seen(clauses: Iterable[str]) -> frozenset[str]:
    return frozenset(_SAME.get(Clause(clause), Clause(clause)).value for clause in clauses)


def sees(clause: Clause) -> bool:
    """Whether a script can find that a clause is violated."""
    return _SAME.get(clause, clause) in JUDGED


def violated(output: str) -> tuple[str, ...]:
    """The clauses that a script names after its verdict."""
    told = output.rpartition("\nOn ")[2].splitlines()[1:]
    names = [line.strip().partition(":")[0] for line in told if line.startswith("  ")]
    return tuple(dict.fromkeys(name for name in names if name in set(Clause)))


def read(text: str) -> tuple[Outcome, ...]:
    """The file's lines; of two on the same script and kernel the later one's.

    Raises ValueError for a line that is none of the file's.
    """
    return tuple({(one.variant, one.kernel): one for one in tsv.read(Outcome, text)}.values())


def agreed(trial: Trial, outcomes: Iterable[Outcome]) -> Outcome | None:
    """What is kept of the script, as it is now, where it said what it should on that kernel."""
    for one in outcomes:
        same = (one.variant, one.kernel, one.digest) == (trial.name, trial.kernel, trial.digest)
        if same and one.script in GOOD and one.suite == trial.status:
            return one
    return None


def done(trial: Trial, outcomes: Iterable[Outcome]) -> bool:
    """Whether the script, as it is now, has said what it should on that kernel."""
    return agreed(trial, outcomes) is not None


Runs = Callable[[str], tuple[int, str]]
"""What runs a script in a fresh guest: its exit status, and what it printed."""


def attempt(trial: Trial, run: Runs, *, tries: int = 3) -> tuple[str, int, str]:
    """The word, the exit status and the output of the first try that agrees, or else of the last.

    Tried again is what the suite itself calls chance, and what could not tell. A script that disagrees
    once disagrees.
    """
    word_, status, output = DISAGREES, UNABLE, ""
    for _ in range(tries):
        status, output = run(trial.text)
        word_ = word(trial, status, violated(output))
        if word_ in (AGREES, DISAGREES):
            break
    return word_, status, output
