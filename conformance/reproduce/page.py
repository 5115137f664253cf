"""docs/reproduce.md: what the scripts of the published deviations said, and what has no script. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from conformance.model import Status
from conformance.reproduce.trials import (
    AGREES,
    CHANCE,
    DISAGREES,
    UNTOLD,
    Outcome,
    Refusal,
    Trial,
)

NOT_YET = "not run yet"
_HEAD = """\
<!-- Made by `python -m conformance.publish reproduced`; edits are lost. -->

# What plain scripts say of the published deviations

Each variant that deviates on a published kernel, as the script that `./conform reproduce` makes of it, run in
a fresh guest on each kernel that the suite judged it on, with nothing of the suite's own writer and judge. A
script agrees with a FAIL if it ends with FAIL, names a clause that the suite's findings name, or a known row
that tells of chance, and none that neither findings nor rows name; and with a PASS if it ends with PASS.
`./conform test -e reproduce` runs what has not been run yet, or did something else then; what came of it is
in [results/reproduced.tsv](../results/reproduced.tsv).

{counts}

| cell | means |
|---|---|
| ✗ | both say FAIL |
| ✓ | both say PASS |
| ✗? | by the known rows it depends on chance, and one of the two did not meet it: the script in three tries |
| **?** | the script cannot tell, in three tries |
| **!** | they disagree |
| … | not run yet |
| | the suite has no verdict of that variant there |
"""


def page(found: Sequence[Trial], refused: Sequence[Refusal], outcomes: Sequence[Outcome]) -> str:
    """The page's text."""
    said = {(one.variant, one.kernel, one.digest): one for one in outcomes}
    words = [_word(trial, said) for trial in found]
    scripts = len({trial.name for trial in found})
    counts = f"{scripts} scripts; {len(refused)} variants have none. {_counted(words)}."
    lines = [_HEAD.format(counts=counts)]
    names = sorted({trial.kernel for trial in found})
    lines += [f"| script | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for variant in dict.fromkeys(trial.name for trial in found):
        mine = {trial.kernel: trial for trial in found if trial.name == variant}
        cells = [_cell(mine.get(name), said) for name in names]
        lines.append(f"| `{variant}` | {' | '.join(cells)} |")
    lines += ["", "## Without a script", ""]
    lines += ["| variant | part | why no plain script |", "|---|---|---|"]
    lines += [f"| `{one.variant.id}` | {one.part} | {one.why} |" for one in refused]
    return "\n".join(lines) + "\n"


def _counted(words: Sequence[str]) -> str:
    order = (AGREES, CHANCE, UNTOLD, DISAGREES, NOT_YET)
    told = ", ".join(f"{words.count(one)} {one}" for one in order if one in words)
    return f"Of {len(words)} scripts and kernels: {told}"


def _word(trial: Trial, said: Mapping[tuple[str, str, str], Outcome]) -> str:
    one = said.get((trial.name, trial.kernel, trial.digest))
    return NOT_YET if one is None or one.suite != trial.status else one.script


def _cell(trial: Trial | None, said: Mapping[tuple[str, str, str], Outcome]) -> str:
    if trial is None:
        return ""
    agree = "✗" if trial.status is Status.FAIL else "✓"
    signs = {AGREES: agree, CHANCE: "✗?", UNTOLD: "**?**", DISAGREES: "**!**"}
    return signs.get(_word(trial, said), "…")
