"""What the guest does for each verb of a case: one function a verb.

A step answers with what it saw; the session adds its times and the watchers' view. RigError is the
rig's own failure. A command that fails is a fact.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable

from agent.basics import BLOCK, Json, RigError, one_line, poll_until
from agent.layers import Layer, succeeded
from agent.layers.base import Attachable
from agent.layers.file import File
from agent.layers.fs import Filesystem
from agent.layers.loop import Loop
from agent.layers.snapshot import DmSnapshot
from agent.layers.thin import ThinSnapshot
from agent.processes import ended
from agent.rig import Rig
from agent.workloads import calls, files, fio, ledger, metadata, ranges, readback
from agent.workloads import run as run_command

DETACH_LIMIT = 5.0
"""Seconds, on the reference machine, that a device gets at least to be gone once nobody has it open."""
REMOVE_LIMIT = 5.0
"""Seconds, on the reference machine, for a cgroup to be free of the processes that have ended."""
UNTOLD = 200
"""Names that were only synced with their directory, and are told because they are not there."""

Verb = Callable[[Rig, Json], Json]


def write(rig: Rig, step: Json) -> Json:
    """The ledger or fio writes a region of a block layer."""
    path = rig.layer(step["target"]).path
    if step["submit"] in fio.ENGINES:
        return _write_by_fio(rig, step, path)
    if step["submit"] not in ledger.WAYS:
        raise RigError(f"the guest's program cannot submit by {step['submit']}")
    order = ledger.order_of(step, path)
    if step.get("detach"):
        return _write_and_detach(rig, step, order)
    submitter, problem = ledger.write(order, rig.pattern, rig.clock, **_where(rig, step))
    return {"submitter": submitter, "problem": problem}


def _write_and_detach(rig: Rig, step: Json, order: ledger.Order) -> Json:
    """The device is detached while the writer has it open: it goes when the writer closes it."""
    device = _attachable(rig, step)
    deadline = time.monotonic() + step["limit"]
    commands: list[Json] = []
    submitter, problem = ledger.write(
        order,
        rig.pattern,
        rig.clock,
        **_where(rig, step),
        at_mark=lambda: commands.append(device.detach()),
    )
    if commands:
        commands, why = _attach_anew(device, commands, "the writer has closed it", deadline)
        problem = problem or why
    return {"submitter": submitter, "commands": commands, "problem": problem}


def _write_by_fio(rig: Rig, step: Json, path: str) -> Json:
    order = fio.order_of(step, path)
    rig.by_fio.append(order)
    submitter, problem = fio.write(order, rig.pattern.run, rig.clock, **_where(rig, step))
    if not problem and submitter["ended"]["exit_code"] is not None:
        # fio does not sync after an error, and not always after its last request.
        sync = ledger.Order(
            path=path,
            submit="direct",
            offset=0,
            length=0,
            request=BLOCK,
            generation=order.generation,
            sync_only=True,
        )
        synced, problem = ledger.write(sync, rig.pattern, rig.clock, **_where(rig, step))
        submitter["ops"] += synced["ops"]
        if synced["ended"]["exit_code"] != 0:
            submitter["ended"] = synced["ended"]
    return {"submitter": submitter, "problem": problem}


def verify(rig: Rig, step: Json) -> Json:
    """Every block of a region of a block layer is read back."""
    layer = rig.layer(step["target"])
    recognise = readback.recogniser(rig.pattern, fio.recogniser(rig.by_fio, rig.pattern.run))
    drop = [*layer.files_below(), layer.path] if step["drop_caches"] else None

    def look() -> Json:
        seen = readback.read_device(
            layer.path, step["offset"], step["length"], recognise, drop=drop
        )
        return {"extents": seen}

    return _look(rig, step, look, ["readback", layer.path])


def _look(rig: Rig, step: Json, look: Callable[[], Json], what: list[str]) -> Json:
    found, commands, problem = readback.in_child(
        look, what=what, limit=step["limit"], tick=rig.log.drain
    )
    return {**(found or {}), "commands": commands, "problem": problem}


def make_calls(rig: Rig, step: Json) -> Json:
    """System calls on descriptors of one file or device."""
    layer = rig.layer(step["target"])
    order = calls.Order(
        path=layer.path,
        offset=step["offset"],
        length=step["length"],
        generation=step["generation"],
        script=tuple(step["script"]),
        # Of a file, whether its filesystem still takes anything: it may have shut itself down.
        beside=f"{layer.path}.beside" if isinstance(layer, File) else "",
    )
    return calls.make(order, rig.pattern, rig.clock, limit=step["limit"], tick=rig.log.drain)


def range_op(rig: Rig, step: Json) -> Json:
    """A discard, zeroes, or a mode of fallocate(2), on a range of a block layer."""
    order = ranges.order_of(step, rig.layer(step["target"]).path)
    submitter, problem = ranges.ask(order, rig.clock, **_where(rig, step))
    return {"submitter": submitter, "problem": problem}


def truncate(rig: Rig, step: Json) -> Json:
    """A file is cut under whatever stands on it."""
    try:
        os.truncate(rig.layer(step["target"]).path, step["size"])
    except OSError as error:
        raise RigError(f"cannot truncate {step['target']}: {error}") from error
    return {}


def run(rig: Rig, step: Json) -> Json:
    """A command as a person would type it."""
    paths = {name: layer.path for name, layer in rig.layers.items()}
    submitter, command = run_command.submit(
        run_command.filled(step["argv"], paths),
        limit=step["limit"],
        cgroup=step["cgroup"],
        procs=_procs(rig, step["cgroup"]),
        tick=rig.log.drain,
    )
    return {"submitter": submitter, "commands": [command]}


def write_files(rig: Rig, step: Json) -> Json:
    """Files of one size are written and each fsynced."""
    filesystem = rig.layer(step["target"])
    if not filesystem.mounted:
        return _not_mounted(rig, step)
    order = files.Order(
        root=filesystem.path,
        directory=step["directory"],
        size=step["size"],
        count=step["count"],
        generation=step["generation"],
        first=rig.files_begun,
        submit=step["submit"],
        sync=step["sync"],
        owner=step["owner"],
    )
    if order.owner:
        # As /tmp is: everybody may make files there.
        os.chmod(filesystem.path, 0o1777)
    rig.files_begun += step["count"]
    seen, found = files.write(order, rig.pattern, rig.clock, **_where(rig, step))
    rig.synced.setdefault(filesystem.name, []).extend(found)
    return seen


def metadata_storm(rig: Rig, step: Json) -> Json:
    """A load that is all metadata."""
    filesystem = _filesystem(rig, step)
    if not filesystem.mounted:
        return _not_mounted(rig, step)
    order = metadata.Order(
        root=filesystem.path,
        directory=step["directory"],
        count=step["count"],
        sync_every=step["sync_every"],
        mix=step["mix"],
    )
    seen, found = metadata.storm(order, rig.clock, **_where(rig, step))
    rig.synced.setdefault(filesystem.name, []).extend(found)
    return seen


def verify_files(rig: Rig, step: Json) -> Json:
    """Every file that was synced is read back."""
    filesystem = rig.layer(step["target"])
    wanted = rig.synced.get(filesystem.name, [])
    if not filesystem.mounted:
        # Nothing of it can be read: that is what a user of the filesystem would find.
        gone = {"state": "unreadable", "size": 0, "errno": errno.ENODEV, "wrong": []}
        return {"files": [{"path": one.path, **gone} for one in wanted if one.told]}

    def look() -> Json:
        if step["drop_caches"]:
            readback.forget_caches(filesystem.files_below())
        states, untold = [], 0
        for one in wanted:
            state = files.look_at(filesystem.path, one, rig.pattern, drop=step["drop_caches"])
            if not one.told and state["state"] != "whole":
                untold += 1
            if one.told or (state["state"] != "whole" and untold <= UNTOLD):
                states.append(state)
        return {"files": states}

    return _look(rig, step, look, ["readback", filesystem.path])


def _not_mounted(rig: Rig, step: Json) -> Json:
    """A mount that failed before is the kernel's answer, not the rig's failure: told as an error
    of the first thing that the step would have done.
    """
    now = rig.clock.us()
    return {"file_ops": [["mkdir", step["directory"], 1, 0, -errno.ENODEV, now, now]]}


def _where(rig: Rig, step: Json) -> Json:
    cgroup = step["cgroup"]
    return {
        "limit": step["limit"],
        "cgroup": cgroup,
        "procs": _procs(rig, cgroup),
        "anon": lambda: rig.cgroups.anonymous(cgroup),
        "tick": rig.log.drain,
    }


def impose(rig: Rig, _step: Json) -> Json:
    """The shortage's limit is put in force."""
    assert rig.shortage is not None
    rig.shortage.impose()
    return {}


def relieve(rig: Rig, _step: Json) -> Json:
    """The shortage is taken away."""
    assert rig.shortage is not None
    rig.shortage.relieve()
    return {}


def unmount(rig: Rig, step: Json) -> Json:
    """A filesystem is unmounted, as umount(8) does it."""
    return {"commands": [_filesystem(rig, step).unmount(_limit(rig, step))]}


def mount(rig: Rig, step: Json) -> Json:
    """A filesystem is mounted again."""
    return {"commands": [_filesystem(rig, step).mount(_limit(rig, step))]}


def check(rig: Rig, step: Json) -> Json:
    """The filesystem's own checker, on the unmounted device."""
    filesystem = _filesystem(rig, step)
    if filesystem.mounted:
        if filesystem.refused:
            return {"commands": [_impossible("fsck", filesystem, "still mounted")]}
        raise RigError(f"{filesystem.name} is mounted: its checker would see it in motion")
    return {"commands": [filesystem.check(_limit(rig, step))]}


def trim(rig: Rig, step: Json) -> Json:
    """A directory is removed, and its space given back to what is below."""
    filesystem = _filesystem(rig, step)
    below = f"{step['directory']}/"
    kept = [one for one in rig.synced.get(filesystem.name, []) if not one.path.startswith(below)]
    rig.synced[filesystem.name] = kept
    if not filesystem.mounted:
        return {"commands": [_impossible("fstrim", filesystem, "not mounted")]}
    return {"commands": filesystem.trim(step["directory"], _limit(rig, step))}


def make(rig: Rig, step: Json) -> Json:
    """The filesystem is made anew."""
    filesystem = _filesystem(rig, step)
    if filesystem.mounted:
        raise RigError(f"{filesystem.name} is mounted: it cannot be made anew")
    rig.synced[filesystem.name] = []
    return {"commands": [filesystem.make(_limit(rig, step))]}


def _impossible(program: str, filesystem: Filesystem, why: str) -> Json:
    """A command that could not be run, since an unmount or a mount failed: the kernel's answer."""
    argv = [program, filesystem.path]
    return {"argv": argv, "ended": ended(exit_code=1), "output": why}


def reattach(rig: Rig, step: Json) -> Json:
    """A device is detached and attached again; bystanders close it meanwhile."""
    device = _attachable(rig, step)
    deadline = time.monotonic() + step["limit"]
    busy = rig.crew.pause()
    commands, problem = _attach_anew(
        device,
        [device.detach()],
        f"bystanders that did not let go: {busy}",
        deadline,
        remove=step.get("remove", False),
    )
    rig.crew.resume()
    return {"commands": commands, "problem": problem}


def _attachable(rig: Rig, step: Json) -> Attachable:
    device = rig.layer(step["target"])
    if not isinstance(device, Attachable):
        raise RigError(f"{device.name} cannot be attached again")
    return device


def _attach_anew(
    device: Attachable, commands: list[Json], told: str, deadline: float, *, remove: bool = False
) -> tuple[list[Json], str]:
    """Once a device is free, attach it again: (the commands with those before, a problem).

    It has until the step's limit, at ``deadline``, to be free.
    """
    least = DETACH_LIMIT * device.site.pace
    if not poll_until(lambda: not device.attached(), max(least, deadline - time.monotonic())):
        # Detaching may return 0 although the device stays attached until its last user closes it.
        how = {**ended(timed_out=True), "killable": True}
        output = f"still attached; {told}"
        return [*commands, {"argv": ["detached", device.path], "ended": how, "output": output}], ""
    if remove and isinstance(device, Loop):
        commands = [*commands, device.renew()]
    commands = [*commands, device.attach()]
    if not succeeded(commands[-1]) or not device.attached():
        said = one_line(commands[-1]["output"])
        return commands, f"{device.path} cannot be attached again: {said}"
    return commands, ""


def take_snapshot(rig: Rig, step: Json) -> Json:
    """A snapshot is taken anew."""
    layer = rig.layer(step["target"])
    if not isinstance(layer, ThinSnapshot | DmSnapshot):
        raise RigError(f"{layer.name} is no snapshot")
    layer.take()
    return {}


def kill_keeper(rig: Rig, step: Json) -> Json:
    """The process that set a loop device up is ended."""
    device = rig.layer(step["target"])
    if not isinstance(device, Loop):
        raise RigError(f"{device.name} is no loop device")
    device.kill_keeper()
    return {}


def remove_cgroup(rig: Rig, step: Json) -> Json:
    """A cgroup is removed, as rmdir(1) does it."""
    # A process that has ended leaves its cgroup a moment after it could be waited for.
    said = "not tried"

    def removed() -> bool:
        nonlocal said
        said = rig.cgroups.remove(step["cgroup"])
        return not said

    rig.site.poll(removed, REMOVE_LIMIT)
    how = ended(1 if said else 0)
    command = {"argv": ["rmdir", step["cgroup"]], "ended": how, "output": said}
    return {"commands": [command]}


def _limit(rig: Rig, step: Json) -> float:
    """A step's limit in seconds of the reference machine, as layers take it: it came as of this one."""
    limit: float = step["limit"]
    return limit / rig.site.pace


def _procs(rig: Rig, cgroup: str) -> str:
    if cgroup and cgroup not in rig.cgroups.paths:
        raise RigError(f"the case has no cgroup {cgroup}")
    return rig.cgroups.procs(cgroup)


def _filesystem(rig: Rig, step: Json) -> Filesystem:
    layer: Layer = rig.layer(step["target"])
    if not isinstance(layer, Filesystem):
        raise RigError(f"{layer.name} is no filesystem")
    return layer


VERBS: dict[str, Verb] = {
    "write": write,
    "calls": make_calls,
    "verify": verify,
    "range_op": range_op,
    "truncate": truncate,
    "run": run,
    "files": write_files,
    "metadata": metadata_storm,
    "verify_files": verify_files,
    "impose": impose,
    "relieve": relieve,
    "unmount": unmount,
    "mount": mount,
    "check": check,
    "trim": trim,
    "mkfs": make,
    "reattach": reattach,
    "snapshot": take_snapshot,
    "kill_keeper": kill_keeper,
    "remove_cgroup": remove_cgroup,
}
"""The verbs of the case language, by their names."""
