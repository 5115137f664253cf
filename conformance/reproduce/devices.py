"""Layers that a shell makes with a tool of their own: device mapper, md, zram, overlayfs.

Each is made as the guest's own program makes it (vm/agent/layers/), so that a script meets what a case
meets. A device of the device mapper is called $dm.NAME.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from conformance.model import Layer
from conformance.model.layers.backings import OverlayLayer
from conformance.model.layers.md import MdRaidLayer
from conformance.model.layers.memory import ZramLayer
from conformance.model.layers.snapshot import DmSnapshotLayer, SnapshotOriginLayer
from conformance.model.layers.stack import DmCryptLayer, DmLinearLayer, DmMirrorLayer
from conformance.model.layers.thin import ThinLayer, ThinPoolLayer

SECTOR = 512
THIN_GROWS = 2
"""How many times as large as at first the devices of a pool can become."""
SNAPSHOT_CHUNK = 16384
MIRROR_REGION = 1024
KEY = bytes(range(64)).hex()
"""Of dm-crypt: nothing is a secret here."""
MD_CHUNK, MD_OFFSET = 64, 1024
"""KiB."""

Path = Callable[[str], str]


@dataclass(frozen=True, kw_only=True)
class Device:
    """Lines of shell. ``attach`` and ``detach`` become functions, and fail if it does not go."""

    rig: tuple[str, ...]
    attach: tuple[str, ...] = ()
    detach: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()


BLOCK = (
    ThinLayer,
    MdRaidLayer,
    ZramLayer,
    SnapshotOriginLayer,
    DmSnapshotLayer,
    DmCryptLayer,
    DmLinearLayer,
    DmMirrorLayer,
)
"""Of these, what is written and read as a block device."""


def later(command: str) -> str:
    """The line that has ``cleanup`` run a command, before those that were noted earlier.

    What has a name of the script's own is noted before it is made: to undo it does no harm if it never
    was. What is given a name that somebody else's may have is noted once it is made.
    """
    return f"later {shlex.quote(command)}"


def mapped(name: str) -> str:
    """The node of a device of the device mapper."""
    return f"/dev/mapper/$dm.{name}"


def device(
    layer: Layer, path: Path, layers: Mapping[str, Layer], sizes: Mapping[str, int]
) -> Device | None:
    """How a layer is made; None: it is not one of these. ``path``: the shell's word for a layer."""
    match layer:
        case ThinPoolLayer():
            return _pool(layer, path)
        case ThinLayer():
            return _thin(layer, layers)
        case MdRaidLayer():
            return _md(layer, path)
        case ZramLayer():
            return _zram(layer)
        case SnapshotOriginLayer():
            return _origin(layer, path)
        case DmSnapshotLayer():
            return _snapshot(layer, layers, path)
        case DmCryptLayer():
            words = f"crypt aes-xts-plain64 {KEY} 0 {path(layer.on)} 0"
            return _plain(layer.name, sizes[layer.name], words, "dm-crypt")
        case DmLinearLayer():
            return _plain(layer.name, sizes[layer.name], f"linear {path(layer.on)} 0", "dm-mod")
        case DmMirrorLayer():
            return _mirror(layer, path)
        case OverlayLayer():
            return _overlay(layer, path)
        case _:
            return None


def linear(base: str, offset: int, length: int) -> str:
    """A table: a stretch of another device."""
    return f"0 {length // SECTOR} linear {base} {offset // SECTOR}"


def _plain(name: str, size: int, words: str, module: str) -> Device:
    return Device(
        rig=(f"modprobe -q {module}", later(f"dm_gone {name}")),
        attach=(f'dm {name} "0 {size // SECTOR} {words}"',),
        detach=(f"dm_gone {name}",),
        functions=("dm",),
        tools=("dmsetup",),
    )


# -- thin pools -----------------------------------------------------------------------------------


def pool_data(layer: ThinPoolLayer, base: str, size: int) -> str:
    """The table of a pool's data device: metadata and spare metadata come before it."""
    return linear(base, 2 * THIN_GROWS * layer.metadata, size)


def pool_table(layer: ThinPoolLayer, sectors: int | str) -> str:
    """A pool's own table; ``sectors``: of its data device, or the shell's word for them."""
    words = f"{mapped(f'{layer.name}-tmeta')} {mapped(f'{layer.name}-tdata')}"
    error = " 1 error_if_no_space" if layer.no_space == "error" else ""
    return f"0 {sectors} thin-pool {words} {layer.chunk // SECTOR} 0{error}"


def _pool(layer: ThinPoolLayer, path: Path) -> Device:
    name, base = layer.name, path(layer.on)
    meta, data = f"{name}-tmeta", f"{name}-tdata"
    queue: tuple[str, ...] = ()
    if layer.no_space == "queue":
        parameter = "/sys/module/dm_thin_pool/parameters/no_space_timeout"
        queue = (
            f"timeout_before=$(cat {parameter})",
            f'later "echo $timeout_before >{parameter}"',
            f"echo {layer.timeout} >{parameter}",
        )
    return Device(
        rig=(
            "modprobe -q dm-thin-pool",
            *queue,
            later(f"dm_gone {meta}"),
            f'dm {meta} "{linear(base, 0, layer.metadata)}" || unable "no linear device"',
            f'dd if=/dev/zero of="{mapped(meta)}" bs=4096 count=1 conv=fsync 2>/dev/null',
            later(f"dm_gone {data}"),
            f'dm {data} "{pool_data(layer, base, layer.data)}" || unable "no linear device"',
            later(f"dm_gone {name}"),
        ),
        # Its data device may have grown since.
        attach=(
            f'sectors=$(blockdev --getsz "{mapped(data)}")',
            f'dm {name} "{pool_table(layer, "$sectors")}"',
        ),
        detach=(f"dm_gone {name}",),
        functions=("dm",),
        tools=("dmsetup",),
    )


def thin_number(layer: ThinLayer, layers: Mapping[str, Layer]) -> int:
    """Its number in its pool."""
    mine = [one for one in layers.values() if isinstance(one, ThinLayer) and one.on == layer.on]
    return [one.name for one in mine].index(layer.name) + 1


def _thin(layer: ThinLayer, layers: Mapping[str, Layer]) -> Device:
    name, number = layer.name, thin_number(layer, layers)
    alone = sum(isinstance(one, ThinLayer) and one.on == layer.on for one in layers.values()) == 1
    table = f"0 {layer.size // SECTOR} thin {mapped(layer.on)} {number}"
    return Device(
        rig=(
            f'dmsetup message "$dm.{layer.on}" 0 "create_thin {number}" || unable "no thin device"',
            later(f"dm_gone {name}"),
        ),
        # The pool goes with its last device, so that what is read later comes from the medium.
        attach=(
            *((f'[ -e "{mapped(layer.on)}" ] || attach_{layer.on} || return 1',) if alone else ()),
            f'dm {name} "{table}"',
        ),
        detach=(f"dm_gone {name} || return 1", f"detach_{layer.on}" if alone else ":"),
        functions=("dm",),
        tools=("dmsetup",),
    )


# -- old snapshots --------------------------------------------------------------------------------


def _origin(layer: SnapshotOriginLayer, path: Path) -> Device:
    name, real = layer.name, f"{layer.name}-real"
    return Device(
        rig=(
            "modprobe -q dm-snapshot",
            later(f"dm_gone {real}"),
            f'dm {real} "{linear(path(layer.on), 0, layer.size)}" || unable "no linear device"',
            later(f"dm_gone {name}"),
        ),
        attach=(f'dm {name} "{_origin_table(layer)}"',),
        detach=(f"dm_gone {name}",),
        functions=("dm",),
        tools=("dmsetup",),
    )


def _origin_table(layer: SnapshotOriginLayer) -> str:
    return f"0 {layer.size // SECTOR} snapshot-origin {mapped(f'{layer.name}-real')}"


def snapshot_cow(layer: DmSnapshotLayer, layers: Mapping[str, Layer], path: Path, size: int) -> str:
    """The table of its COW device, of so many bytes."""
    origin = layers[layer.on]
    assert isinstance(origin, SnapshotOriginLayer)
    return linear(path(origin.on), origin.size, size)


def _snapshot(layer: DmSnapshotLayer, layers: Mapping[str, Layer], path: Path) -> Device:
    name, cow, origin = layer.name, f"{layer.name}-cow", layers[layer.on]
    assert isinstance(origin, SnapshotOriginLayer)
    words = (
        f"{mapped(f'{origin.name}-real')} {mapped(cow)} {layer.store} {SNAPSHOT_CHUNK // SECTOR}"
    )
    return Device(
        rig=(
            later(f"dm_gone {cow}"),
            f'dm {cow} "{snapshot_cow(layer, layers, path, layer.cow)}" || unable "no linear device"',
            f"clear_{name}() {{",
            f'    dd if=/dev/zero of="{mapped(cow)}" bs={SNAPSHOT_CHUNK} count=1 conv=fsync 2>/dev/null',
            "}",
            f"clear_{name}",
            later(f"detach_{name}"),
        ),
        # The origin looks for its snapshots when it gets its table; without one it copies nothing.
        attach=(
            f'dm {name} "0 {origin.size // SECTOR} snapshot {words}" || return 1',
            f'dm_table {origin.name} "{_origin_table(origin)}"',
        ),
        detach=(
            f'dmsetup suspend --nolockfs "$dm.{origin.name}"',
            f"dm_gone {name} && gone=0 || gone=1",
            f'dmsetup resume "$dm.{origin.name}"',
            'return "$gone"',
        ),
        functions=("dm", "dm_table"),
        tools=("dmsetup",),
    )


# -- mirrors and arrays ---------------------------------------------------------------------------


def _mirror(layer: DmMirrorLayer, path: Path) -> Device:
    name = layer.name
    legs = " ".join(path(leg) for leg in layer.legs)
    return Device(
        rig=("modprobe -q dm-mirror", "synced=nosync", f'legs="{legs}"', later(f"dm_gone {name}")),
        attach=(
            "# shellcheck disable=SC2086 # the legs are words",
            "set -- $legs",
            f'dm {name} "0 {layer.size // SECTOR} mirror core 2 {MIRROR_REGION} $synced 2 $1 0 $2 0"',
        ),
        # Notes on what is in sync are in memory: whoever makes it anew says which leg is good, the one
        # that the kernel has not marked as failed.
        detach=(
            "# shellcheck disable=SC2046,SC2086 # words of the status, and the legs",
            f'set -- $legs $(dmsetup status --noflush "$dm.{name}")',
            "case ${11-} in",
            "A[!A]) synced=sync ;;",
            '[!A]A) synced=sync legs="$2 $1" ;;',
            "esac",
            f"dm_gone {name}",
        ),
        functions=("dm",),
        tools=("dmsetup",),
    )


def _md(layer: MdRaidLayer, path: Path) -> Device:
    many = len(layer.legs)
    five = layer.personality == "raid5"
    share = layer.size // 1024 // (many - 1 if five else 1)
    words = [f"--level={layer.personality}", f"--raid-devices={many}", f"--size={share}"]
    words += [f"--metadata={layer.metadata}", "--assume-clean", "--run", "--bitmap=none"]
    words += [f"--chunk={MD_CHUNK}"] if five else []
    words += [f"--data-offset={MD_OFFSET}"] if layer.metadata == "1.2" else []
    variable = layer.name.upper()
    legs = " ".join(f'"{path(leg)}"' for leg in layer.legs)
    return Device(
        rig=(
            f"modprobe -q {'raid456' if five else 'raid1'}",
            "array=100",
            "while [ -e /sys/block/md$array ]; do array=$((array + 1)); done",
            f"{variable}=/dev/md$array",
            f'mdadm --create "${variable}" {" ".join(words)} \\',
            f'    {legs} >/dev/null 2>&1 || unable "mdadm makes no array"',
            later(f'mdadm --stop "${variable}" 2>/dev/null'),
        ),
        attach=(f'md_assemble "${variable}" {legs}',),
        detach=(f'mdadm --stop "${variable}" 2>/dev/null',),
        functions=("md",),
        tools=("mdadm", "lsblk"),
    )


# -- zram and overlayfs ---------------------------------------------------------------------------


def _zram(layer: ZramLayer) -> Device:
    variable = layer.name.upper()
    return Device(
        rig=(
            "modprobe -q zram num_devices=0",
            'zram=$(cat /sys/class/zram-control/hot_add) || unable "no zram device"',
            later('echo "$zram" >/sys/class/zram-control/hot_remove'),
            later('echo 1 >"/sys/block/zram$zram/reset"'),
            f"{variable}=/dev/zram$zram",
            f'echo {layer.size} >"/sys/block/zram$zram/disksize"',
        ),
    )


def _overlay(layer: OverlayLayer, path: Path) -> Device:
    variable, below = layer.name.upper(), path(layer.on)
    source = f"{below}/{layer.name}.d"
    options = f"lowerdir=$work/{layer.name}.lower,upperdir={source}/upper,workdir={source}/work"
    return Device(
        rig=(
            f"{variable}=$work/{layer.name}",
            f'mkdir "${variable}" "${variable}.lower" "{source}" "{source}/upper" "{source}/work"',
            later(f'umount "${variable}"'),
            f'mount -t overlay -o "{options}" none "${variable}" || unable "no overlayfs"',
        ),
    )
