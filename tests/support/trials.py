"""Stories put before one clause, or before none: without the verdict that is made of all of them."""

from __future__ import annotations

from conformance.model import Clause, Finding
from conformance.oracle.clauses import CLAUSES
from conformance.oracle.trial import Trial, trial
from tests.support.builders import Story


def joined(main: Story, **others: Story) -> Trial:
    """A trial of an arm ``main``, and of others by their names."""
    tales = {"main": main, **others}
    asked = [tale.variant.arms[0].model_copy(update={"name": name}) for name, tale in tales.items()]
    seen = [
        tale.observation.arms[0].model_copy(update={"name": name}) for name, tale in tales.items()
    ]
    return trial(
        main.variant.model_copy(update={"arms": tuple(asked)}),
        main.observation.model_copy(update={"arms": tuple(seen)}),
    )


def found(clause: Clause, main: Story, **others: Story) -> list[Finding]:
    """What one clause says of some arms."""
    return list(CLAUSES[clause](joined(main, **others)))
