"""How a shell imposes and relieves a shortage, and sees whether its limit was met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from conformance.model import AnyShortage, Hog, Memcg, Quota, TmpfsSize

_SLACK = 1 << 20
_SLACK_SHARE = 8
"""As the judge has them: bytes, or this part of the limit, by which a gauge may pass it."""


class Inexpressible(Exception):
    """A part of a variant that a plain script cannot do. One line: the part, and why."""

    def __init__(self, part: str, why: str) -> None:
        super().__init__(f"{part}: {why}")
        self.part = part
        self.why = why


@dataclass(frozen=True, kw_only=True)
class Imposed:
    """Lines of shell. ``gauge``: a function that sets ``arrived`` if the limit was met."""

    impose: tuple[str, ...]
    relieve: tuple[str, ...]
    gauge: tuple[str, ...]
    functions: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


def imposed(shortage: AnyShortage, path: Callable[[str], str]) -> Imposed:
    """A shortage in shell; ``path`` is the shell's word for where a layer is.

    Raises Inexpressible.
    """
    match shortage:
        case TmpfsSize():
            return _tmpfs_size(shortage, path(shortage.layer))
        case Memcg():
            return _memcg(shortage)
        case Quota():
            return _quota(shortage, path(shortage.layer))
        case Hog():
            return _hog(shortage, path(shortage.layer))
        case _:
            raise Inexpressible(f"shortage {shortage.kind}", "no plain command imposes it")


def _tmpfs_size(shortage: TmpfsSize, place: str) -> Imposed:
    return Imposed(
        impose=(
            f'before=$(($(stat -f -c "%b * %S" "{place}")))',
            f'mount -o remount,size={shortage.size} "{place}" || unable "it cannot be made smaller"',
        ),
        relieve=(f'mount -o remount,size=$before "{place}"',),
        gauge=_space(place, "%f"),
    )


def _hog(shortage: Hog, place: str) -> Imposed:
    return Imposed(
        impose=(f'hog "{place}" {shortage.leave}',),
        relieve=(f'rm "{place}/hog"', f'sync -f "{place}"'),
        gauge=_space(place, "%a", reserved=shortage.RESERVED),
        functions=("hog",),
        tools=("fallocate",),
    )


def _space(place: str, field: str, *, reserved: int = 0) -> tuple[str, ...]:
    less = f" - {reserved}" if reserved else ""
    return (
        "# gauge: the shortage has come where no request fits any more.",
        "gauge() {",
        f'    room=$(($(stat -f -c "{field} * %S" "{place}"){less}))',
        '    if [ "$room" -lt "${request:-4096}" ]; then arrived=yes; fi',
        "}",
    )


def _memcg(shortage: Memcg) -> Imposed:
    if shortage.swap:
        raise Inexpressible("shortage memcg", "a cgroup that may swap")
    directory = f'"$groups/{shortage.cgroup}"'
    relief = "max" if shortage.relief is None else str(shortage.relief)
    group = (f"echo 1 >{directory}/memory.oom.group",) if shortage.oom_group == "on" else ()
    return Imposed(
        impose=(
            *group,
            f"met=$(sed -n 's/^{shortage.knob} //p' {directory}/memory.events)",
            f"echo {shortage.limit} >{directory}/memory.{shortage.knob}",
        ),
        relieve=(f"echo {relief} >{directory}/memory.{shortage.knob}",),
        gauge=(
            "# gauge: the shortage has come where the kernel counts that the limit was met.",
            "gauge() {",
            f"    hits=$(sed -n 's/^{shortage.knob} //p' {directory}/memory.events)",
            '    if [ "$hits" -gt "$met" ]; then arrived=yes; fi',
            "}",
        ),
    )


def _quota(shortage: Quota, place: str) -> Imposed:
    option = {"user": "-u", "group": "-g", "project": "-P"}[shortage.type]
    kib = shortage.limit // 1024
    most = shortage.limit + max(_SLACK, shortage.limit // _SLACK_SHARE)
    return Imposed(
        impose=(
            f'setquota {option} {shortage.id} 0 {kib} 0 0 "{place}" || unable "no such quota here"',
        ),
        relieve=(f'setquota {option} {shortage.id} 0 0 0 0 "{place}"',),
        gauge=(
            "# gauge: what the files take, against the limit; past it there must have been an error.",
            "gauge() {",
            f'    used=$(($(stat -c "%b * %B" "{place}/image")))',
            f"    if [ $((used + request)) -gt {shortage.limit} ]; then arrived=yes; fi",
            f"    if [ $used -gt $(({most} + request)) ]; then",
            f'        deviates limit_enforced "$current: $used bytes in use, limit {shortage.limit}"',
            "    fi",
            "}",
        ),
        tools=("setquota",),
    )
