"""One function for each clause of the norm: a trial in, a finding for each way it does not hold out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from conformance.model import Clause, Finding
from conformance.oracle.clauses.answers import attributed, errno_precise, limit_enforced
from conformance.oracle.clauses.data import (
    acknowledged_readable,
    error_surfaced,
    no_foreign_data,
)
from conformance.oracle.clauses.integrity import (
    filesystem_consistent,
    kernel_sound,
    nothing_leaked,
)
from conformance.oracle.clauses.killing import (
    bystanders_unharmed,
    no_oom_kill,
    submitter_survives,
)
from conformance.oracle.clauses.progress import (
    bounded,
    equivalent,
    independent_progress,
    resolved_by_waiting,
)
from conformance.oracle.clauses.telling import reported_once
from conformance.oracle.clauses.usage import overwrite_in_place, reusable
from conformance.oracle.trial import Trial

CLAUSES: Mapping[Clause, Callable[[Trial], Iterable[Finding]]] = {
    Clause.ERROR_SURFACED: error_surfaced,
    Clause.ERRNO_PRECISE: errno_precise,
    Clause.LIMIT_ENFORCED: limit_enforced,
    Clause.NO_OOM_KILL: no_oom_kill,
    Clause.SUBMITTER_SURVIVES: submitter_survives,
    Clause.BYSTANDERS_UNHARMED: bystanders_unharmed,
    Clause.ACKNOWLEDGED_READABLE: acknowledged_readable,
    Clause.NO_FOREIGN_DATA: no_foreign_data,
    Clause.OVERWRITE_IN_PLACE: overwrite_in_place,
    Clause.REUSABLE: reusable,
    Clause.BOUNDED: bounded,
    Clause.RESOLVED_BY_WAITING: resolved_by_waiting,
    Clause.INDEPENDENT_PROGRESS: independent_progress,
    Clause.EQUIVALENT: equivalent,
    Clause.ATTRIBUTED: attributed,
    Clause.REPORTED_ONCE: reported_once,
    Clause.FILESYSTEM_CONSISTENT: filesystem_consistent,
    Clause.KERNEL_SOUND: kernel_sound,
    Clause.NOTHING_LEAKED: nothing_leaked,
}

if set(CLAUSES) != set(Clause):  # a clause that nobody judges would hold for nothing
    raise AssertionError(f"clauses without a judge: {set(Clause) ^ set(CLAUSES)}")
