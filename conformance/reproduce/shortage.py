"""How a shell imposes and relieves a shortage, and sees whether its limit was met."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from conformance.model import AnyShortage, Hog, Layer, Memcg, Quota, TmpfsSize
from conformance.model.layers.snapshot import DmSnapshotLayer
from conformance.model.layers.thin import ThinLayer, ThinPoolLayer
from conformance.model.shortages import SnapshotCow, ThinData, ThinMetadata, ZramLimit
from conformance.reproduce.devices import (
    SECTOR,
    THIN_GROWS,
    linear,
    mapped,
    pool_data,
    pool_table,
    snapshot_cow,
)

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
    """Lines of shell. ``gauge``: a function that sets ``arrived`` if the limit was met.

    Where the relief is refused the script gives up: what fails thereafter is not the kernel's fault.
    """

    impose: tuple[str, ...]
    relieve: tuple[str, ...]
    gauge: tuple[str, ...]
    functions: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


def imposed(
    shortage: AnyShortage, path: Callable[[str], str], layers: Mapping[str, Layer]
) -> Imposed:
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
        case ThinData():
            return _thin_data(shortage, layers, path)
        case ThinMetadata():
            return _thin_metadata(shortage, layers, path)
        case SnapshotCow():
            return _snapshot_cow(shortage, layers, path)
        case ZramLimit():
            return _zram(shortage)
        case _:
            raise Inexpressible(f"shortage {shortage.kind}", "no plain command imposes it")


def _must(line: str) -> str:
    """A line of a relief, without which there is none."""
    return f'{line} || unable "it cannot be relieved"'


def _tmpfs_size(shortage: TmpfsSize, place: str) -> Imposed:
    return Imposed(
        impose=(
            f'before=$(($(stat -f -c "%b * %S" "{place}")))',
            f'mount -o remount,size={shortage.size} "{place}" || unable "it cannot be made smaller"',
        ),
        relieve=(_must(f'mount -o remount,size=$before "{place}"'),),
        gauge=_space(place, "%f"),
    )


def _hog(shortage: Hog, place: str) -> Imposed:
    return Imposed(
        impose=(f'hog "{place}" {shortage.leave}',),
        # The sync may tell of an earlier error.
        relieve=(_must(f'rm "{place}/hog"'), f'sync -f "{place}"'),
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
    directory = f'"$groups/{shortage.cgroup}"'
    relief = "max" if shortage.relief is None else str(shortage.relief)
    group = (f"echo 1 >{directory}/memory.oom.group",) if shortage.oom_group == "on" else ()
    return Imposed(
        impose=(
            *group,
            *((f"echo {shortage.swap} >{directory}/memory.swap.max",) if shortage.swap else ()),
            f"met=$(sed -n 's/^{shortage.knob} //p' {directory}/memory.events)",
            f"echo {shortage.limit} >{directory}/memory.{shortage.knob}",
        ),
        relieve=(_must(f"echo {relief} >{directory}/memory.{shortage.knob}"),),
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
        relieve=(_must(f'setquota {option} {shortage.id} 0 0 0 0 "{place}"'),),
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


def _thin_data(
    shortage: ThinData, layers: Mapping[str, Layer], path: Callable[[str], str]
) -> Imposed:
    pool = layers[shortage.layer]
    assert isinstance(pool, ThinPoolLayer)
    if shortage.grows:
        raise Inexpressible("shortage thin_data", "somebody who watches the pool and extends it")
    name, most = pool.name, THIN_GROWS * pool.data
    relieve = {
        "extend": (
            _must(f'dm_table {name}-tdata "{pool_data(pool, path(pool.on), most)}"'),
            "# Writes that wait in the pool's queue are what it is given space for.",
            _must(f'dm_table {name} "{pool_table(pool, most // SECTOR)}" --noflush'),
        ),
        "delete": (_must(f'dmsetup message "$dm.{name}" 0 "delete 99"'),),
        "discard": (
            _must(f"thin_other {name}"),
            "# The pool commits once a second: so long after the last time, it does at the next change.",
            "sleep 2",
            _must(f'blkdiscard "{mapped("others")}"'),
            "dm_gone others",
        ),
    }
    return Imposed(
        impose=(f"thin_others {name} {pool.chunk} {shortage.leave}",),
        relieve=(*relieve[shortage.relief], f"thin_serves {name}"),
        gauge=(
            "# gauge: the shortage has come where the pool has no chunk left.",
            "gauge() {",
            f'    if thin {name} && [ "$thin_used" = "$thin_chunks" ]; then arrived=yes; fi',
            "}",
        ),
        functions=("thin", "dm_table"),
        tools=("dmsetup", "blkdiscard"),
    )


def _thin_metadata(
    shortage: ThinMetadata, layers: Mapping[str, Layer], path: Callable[[str], str]
) -> Imposed:
    pool = layers[shortage.layer]
    assert isinstance(pool, ThinPoolLayer)
    mine = [x.name for x in layers.values() if isinstance(x, ThinLayer) and x.on == pool.name]
    if len(mine) != 1:
        raise Inexpressible("shortage thin_metadata", "a pool with several thin devices in use")
    room = THIN_GROWS * pool.metadata
    base = path(pool.on)
    places = f'"{linear(base, room, room)}" "{linear(base, 0, room)}" "{linear(base, room, room)}"'
    return Imposed(
        impose=(f"thin_empties {pool.name} {shortage.leave // 4096}",),
        relieve=(
            _must(f"detach_{mine[0]}"),
            _must(f"thin_mended {pool.name} {places}"),
            _must(f"attach_{mine[0]}"),
        ),
        gauge=(
            "# gauge: the shortage has come where the pool gave up writing its metadata.",
            "gauge() {",
            f'    if ! thin {pool.name} || [ "$thin_mode" != rw ]; then arrived=yes; fi',
            "}",
        ),
        functions=("thin_metadata", "dm_table"),
        tools=("dmsetup", "thin_check", "thin_repair"),
    )


def _snapshot_cow(
    shortage: SnapshotCow, layers: Mapping[str, Layer], path: Callable[[str], str]
) -> Imposed:
    snapshot = layers[shortage.layer]
    assert isinstance(snapshot, DmSnapshotLayer)
    name = snapshot.name

    def table(size: int) -> str:
        return f'dm_table {name}-cow "{snapshot_cow(snapshot, layers, path, size)}"'

    return Imposed(
        impose=(table(shortage.size),),
        relieve=(_must(table(snapshot.cow)),),
        gauge=(
            "# gauge: the shortage has come where the snapshot says so, or has no sector left.",
            "gauge() {",
            "    # shellcheck disable=SC2046 # words",
            f'    set -- $(dmsetup status --noflush "$dm.{name}")',
            '    if [ "${4%/*}" = "${4#*/}" ]; then arrived=yes; fi',
            "}",
        ),
        functions=("dm", "dm_table"),
        tools=("dmsetup",),
    )


def _zram(shortage: ZramLimit) -> Imposed:
    used = 'tr -s " " <"/sys/block/zram$zram/mm_stat" | cut -d " " -f 4'
    return Imposed(
        impose=(
            f"memory=$(({shortage.leave} + $({used})))",
            'echo "$memory" >"/sys/block/zram$zram/mem_limit"',
        ),
        relieve=(_must('echo 0 >"/sys/block/zram$zram/mem_limit"'),),
        gauge=(
            "# gauge: a page takes up to eight pages of memory at once, and gives them back.",
            "gauge() {",
            f'    if [ $(($({used}) + {shortage.RESERVED})) -gt "$memory" ]; then arrived=yes; fi',
            "}",
        ),
    )
