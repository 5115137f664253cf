"""``tox -e mutation [MODULE...]``: the mutants of the judge and the agent, and which of them survive.

``python -m tests.mutation [--again] [--by PART] [MODULE...]``; a part of a module's path is enough, and
none means all.
The exit status is 1 if a survivor is not explained in survivors.toml, or if what is explained there was
killed or is no mutant any more. What was found is kept in .mutation/: a mutant that was killed is not run
again while its module is the same, so that a run that was ended goes on, and tests written against survivors
are tried on these alone. ``--again`` runs all; ``--by`` runs no tests but those that a part of
a file's path chooses among a module's: quick, and whom they do not kill the others may.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence

from tests.mutation.loop import run
from tests.mutation.mutants import ROOT, Mutant, mutants
from tests.mutation.survivors import Survivor, explained, unexplained, untried
from tests.mutation.targets import TARGETS, among

STORE = ROOT / ".mutation"


class Found:
    """What was found of one module's mutants, in a file of lines of JSON."""

    def __init__(self, module: str, *, again: bool) -> None:
        source = (ROOT / module).read_bytes()
        name = f"{module.removesuffix('.py').replace('/', '.')}-{hashlib.sha256(source).hexdigest()[:12]}"
        self._path = STORE / f"{name}.jsonl"
        if again:
            self._path.unlink(missing_ok=True)
        self.killed: dict[str, str] = {}
        self.survived: dict[str, Survivor] = {}
        for line in self._path.read_text().splitlines() if self._path.exists() else ():
            self._take(json.loads(line))

    def add(self, mutant: Mutant, killer: str | None, change: tuple[str, str]) -> None:
        """Keep what became of a mutant."""
        line = {"mutant": mutant.name, "killer": killer}
        if killer is None:
            one = Survivor(mutant.module, mutant.function, change[0], change[1])
            line["survivor"] = list(one)  # type: ignore[assignment]
        STORE.mkdir(exist_ok=True)
        with self._path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        self._take(line)

    def _take(self, line: Mapping[str, object]) -> None:
        name, killer, survivor = str(line["mutant"]), line["killer"], line.get("survivor")
        if isinstance(survivor, list):
            self.survived[name] = Survivor(*survivor)
        else:
            self.killed[name] = str(killer)
            self.survived.pop(name, None)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for, and tell: the exit status."""
    parser = argparse.ArgumentParser(description="Mutants of the judge and the agent.")
    parser.add_argument("--again", action="store_true", help="those too that were killed before")
    parser.add_argument(
        "--by", metavar="PART", action="append", default=[], help="by these of its tests alone"
    )
    parser.add_argument("modules", nargs="*", help="parts of paths; none means all")
    asked = parser.parse_args(arguments)
    chosen = [
        module
        for module in TARGETS
        if not asked.modules or any(part in module for part in asked.modules)
    ]
    if not chosen:
        parser.error(f"no such module; there are {', '.join(TARGETS)}")
    began = time.process_time()
    every = {module: mutants(module) for module in chosen}
    found = {module: Found(module, again=asked.again) for module in chosen}
    for tests in dict.fromkeys(TARGETS[module] for module in chosen):
        mine = {
            module: [m for m in every[module] if m.name not in found[module].killed]
            for module in chosen
            if TARGETS[module] == tests
        }
        by = among(tests, asked.by)
        problems = _run(mine, by, found) if by and any(mine.values()) else []
        if problems:
            say("without a mutant these tests fail:", *problems)
            return 1
    say(f"{time.process_time() - began:.0f} s of processor time here, without that of the mutants")
    return _tell(every, found)


def _run(
    mine: Mapping[str, Sequence[Mutant]], tests: Iterable[str], found: Mapping[str, Found]
) -> list[str]:
    def tell(mutant: Mutant, killer: str | None, change: tuple[str, str]) -> None:
        found[mutant.module].add(mutant, killer, change)
        if killer is None:
            say(f"survives: {mutant.name} in {mutant.function or 'the module'}", *change)

    return run(mine, tests, tell)


def _tell(every: Mapping[str, Sequence[Mutant]], found: Mapping[str, Found]) -> int:
    known = [row for row in explained() if row.survivor.module in every]
    say(
        "",
        "| module | mutants | killed | equivalent | not explained |",
        "| --- | --- | --- | --- | --- |",
    )
    wrong = 0
    for module, all_of_it in every.items():
        left = list(found[module].survived.values())
        bare, stale = unexplained(left, [r for r in known if r.survivor.module == module])
        missing = untried([m.name for m in all_of_it], found[module].killed, found[module].survived)
        killed = len(all_of_it) - len(left) - len(missing)
        say(f"| `{module}` | {len(all_of_it)} | {killed} | {len(left) - len(bare)} | {len(bare)} |")
        wrong += len(bare) + len(stale) + len(missing)
        if missing:
            say(f"  not tried: {len(missing)}")
        for one in bare:
            say(f"  not explained: {one}")
        for one in stale:
            say(f"  explained, but killed or no mutant: {one}")
    return int(wrong > 0)


def say(*lines: str) -> None:
    """Tell at once, whoever reads it."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
