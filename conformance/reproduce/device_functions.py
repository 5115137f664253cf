"""Shell functions on devices and filesystems, beside those of ``functions``, each by its name."""

from __future__ import annotations

FUNCTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "dm": (
        (),
        """\
# dm NAME TABLE: a device of the device mapper. dm_gone NAME: it is removed.
dm=reproduce-$$
# Without udev nobody but dmsetup makes the nodes.
[ -S /run/udev/control ] || export DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1
dm() { dmsetup create "$dm.$1" --table "$2"; }
dm_gone() { dmsetup remove --retry "$dm.$1"; }
""",
    ),
    "dm_table": (
        ("dm", "unable"),
        """\
# dm_table NAME TABLE [--noflush]: it gets another table.
dm_table() {
    dmsetup reload "$dm.$1" --table "$2" || unable "the device mapper takes no other table for $1"
    # shellcheck disable=SC2086 # no word, or one
    dmsetup suspend --nolockfs ${3-} "$dm.$1"
    dmsetup resume "$dm.$1"
}
""",
    ),
    "thin": (
        ("dm", "unable"),
        """\
# thin POOL: sets thin_used and thin_chunks, thin_mode, and thin_metadata: blocks that are left.
thin() {
    # shellcheck disable=SC2046 # words
    set -- $(dmsetup status --noflush "$dm.$1")
    if [ $# -lt 8 ]; then return 1; fi
    # shellcheck disable=SC2034 # not every shortage asks for all of it
    thin_used=${6%/*} thin_chunks=${6#*/} thin_mode=$8 thin_metadata=$((${5#*/} - ${5%/*}))
}
# thin_others POOL CHUNK LEAVE: somebody else's thin device takes all space but that.
thin_others() {
    thin "$1" || unable "the pool has no status"
    thin_taken=$((((thin_chunks - thin_used) - $3 / $2) * $2))
    dmsetup message "$dm.$1" 0 "create_thin 99"
    thin_other "$1" || unable "no other thin device"
    dd if=/dev/zero of="/dev/mapper/$dm.others" bs="$2" count=$((thin_taken / $2)) \\
        oflag=direct conv=fsync 2>/dev/null || unable "the pool cannot be filled"
    dm_gone others
}
thin_other() { dm others "0 $((thin_taken / 512)) thin /dev/mapper/$dm.$1 99"; }
# thin_serves POOL: it uses what was given back from its next commit on, a second away at most.
thin_serves() {
    tries=0
    until thin "$1" && [ "$thin_mode" = rw ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 100 ]; then break; fi
        sleep 0.1
    done
}
""",
    ),
    "thin_metadata": (
        ("thin",),
        """\
# thin_empties POOL LEAVE: others' thin devices, which are empty, take all metadata but that.
thin_empties() {
    empties=100
    while thin "$1" && [ "$thin_metadata" -gt "$2" ]; do
        some=$(((thin_metadata - $2 + 1) / 2))
        while [ "$some" -gt 0 ]; do
            dmsetup message "$dm.$1" 0 "create_thin $empties" || return
            empties=$((empties + 1)) some=$((some - 1))
        done
    done
}
# thin_mended POOL SPARE LONG LONG_SPARE: of the pool out of use. Its metadata is checked, and written
# anew to a spare place if it is not sound; then it gets all metadata space that there is.
thin_mended() {
    long=$3
    if ! thin_check --clear-needs-check-flag "/dev/mapper/$dm.$1-tmeta" >/dev/null 2>&1; then
        dm spare "$2"
        dd if=/dev/zero of="/dev/mapper/$dm.spare" bs=4096 count=1 conv=fsync 2>/dev/null
        if thin_repair -i "/dev/mapper/$dm.$1-tmeta" -o "/dev/mapper/$dm.spare"; then long=$4; fi
        dm_gone spare
    fi
    dm_table "$1-tmeta" "$long"
    thin_check --clear-needs-check-flag "/dev/mapper/$dm.$1-tmeta" >/dev/null 2>&1
}
""",
    ),
    "md": (
        (),
        """\
# md_assemble ARRAY LEG...: from the legs that are good; one that it has lost is added and rebuilt.
md_assemble() {
    array=$1
    shift
    if ! mdadm --assemble --run "$array" "$@" 2>/dev/null; then
        mdadm --stop "$array" 2>/dev/null
        mdadm --assemble --force --run "$array" "$@" || return 1
    fi
    for leg; do
        [ -e "/sys/block/${array#/dev/}/md/dev-$(lsblk -dno KNAME "$leg")" ] ||
            mdadm --manage "$array" --add "$leg" || return 1
    done
    tries=0
    until [ "$(cat "/sys/block/${array#/dev/}/md/degraded")" = 0 ] &&
        [ "$(cat "/sys/block/${array#/dev/}/md/sync_action")" = idle ]; do
        tries=$((tries + 1))
        if [ "$tries" -gt 600 ]; then return 1; fi
        sleep 0.1
    done
}
""",
    ),
    "again": (
        ("step", "deviates"),
        """\
# again STEP NAME: the device is detached and attached again.
again() {
    step "$1"
    if ! "detach_$2"; then
        deviates reusable "$current: the device cannot be detached"
    elif ! "attach_$2"; then
        deviates reusable "$current: the device cannot be attached again"
    fi
}
""",
    ),
    "patience": (
        ("enter",),
        """\
# within CGROUP COMMAND...: a command there, for no longer than the limit. One that does not end then,
# not even by SIGKILL, is left behind: 124.
within() {
    (
        enter "$1"
        shift
        exec "$@"
    ) &
    child=$! ticks=0 code_=0
    while read -r line 2>/dev/null <"/proc/$child/stat"; do
        case ${line##*) } in Z*) break ;; esac
        ticks=$((ticks + 1))
        if [ $ticks = $((limit * 10)) ]; then kill -9 $child; fi
        if [ $ticks -gt $((limit * 10 + 50)) ]; then return 124; fi
        sleep 0.1
    done
    wait $child || code_=$?
    if [ $ticks -ge $((limit * 10)) ]; then return 124; fi
    return $code_
}
""",
    ),
    "files": (
        ("within", "step", "oom", "deviates", "unable", "gauge"),
        """\
# files STEP ROLE FILESYSTEM DIRECTORY SIZE COUNT FLAGS SYNC CGROUP
# dd writes files of random data, until an error. SYNC: each is fsynced, and its directory; or all of
# the filesystem once, after the last. $work/synced: FILESYSTEM and NAME of those that were synced
# without an error, whose content is kept in $work/files.
files() {
    step "$1"
    role=$2 top=$3 directory=$4 size=$5 count=$6 flags=$7 how=$8
    shift 8
    cgroup=$1 status=0
    mkdir -p "$work/files/$directory"
    : >"$work/written"
    (filer) >"$work/said" 2>&1 || status=$?
    sed -n '/^[a-z]*: /s/^/  /p' "$work/said"
    say "  $(wc -l <"$work/written") of $count files were written"
    oom "$current" "$status"
    case $role:$status in
    control:0 | provoke:0) ;;
    control:*) unable "the control failed without any shortage" ;;
    provoke:*) arrived=yes ;;
    recover:[12]) deviates reusable "$current: failed after the relief" ;;
    esac
    if [ "$role" = provoke ]; then gauge; fi
}
filer() {
    within "$cgroup" mkdir "$top/$directory" || exit
    if [ "$how" = fsync ]; then within "$cgroup" sync "$top" "$top/$directory" || exit; fi
    number=0 failed=0
    while [ $number -lt "$count" ]; do
        name=$directory/f$number end=
        if [ "$how" = fsync ]; then end=,fsync; fi
        dd if=/dev/urandom of="$work/files/$name" bs="$size" count=1 2>/dev/null
        within "$cgroup" dd if="$work/files/$name" of="$top/$name" bs="$size" conv="notrunc$end" \\
            ${flags:+"oflag=$flags"} || failed=$?
        if [ $failed != 0 ]; then break; fi
        if [ "$how" = fsync ]; then within "$cgroup" sync "$top/$directory" || exit; fi
        echo "$top $name" >>"$work/written"
        if [ "$how" = fsync ]; then echo "$top $name" >>"$work/synced"; fi
        number=$((number + 1))
    done
    case $how in
    syncfs) within "$cgroup" sync -f "$top" || exit ;;
    freeze)
        within "$cgroup" fsfreeze --freeze "$top" || exit
        within "$cgroup" fsfreeze --unfreeze "$top" || exit
        ;;
    esac
    if [ "$how" != fsync ]; then cat "$work/written" >>"$work/synced"; fi
    exit $failed
}
""",
    ),
    "verify_files": (
        ("step", "say", "within"),
        """\
# verify_files STEP FILESYSTEM: every file that was synced is there and whole.
verify_files() {
    step "$1"
    while read -r top name; do
        if [ "$top" != "$2" ]; then continue; fi
        lost=$work/lost.files.$(echo "$name" | tr / .)
        dd if="$top/$name" iflag=nocache count=0 2>/dev/null
        if within '' cmp "$work/files/$name" "$top/$name" >"$work/cmp" 2>&1; then
            rm -f "$lost"
            continue
        fi
        echo "$name, whose sync succeeded: $(sed "s,$work,,g; s/^cmp: //" "$work/cmp")" >"$lost"
        say "  $(cat "$lost")"
    done <"$work/synced"
}
""",
    ),
    "filesystem": (
        ("step", "say", "deviates", "oom", "within"),
        """\
# filesystem STEP PHASE COMMAND...: a mount, an unmount or a check. After the relief it must succeed.
filesystem() {
    step "$1"
    phase=$2 status=0
    shift 2
    # A function that mounts sees to its own limit.
    case $1 in mount_*) ;; *) set -- within '' "$@" ;; esac
    "$@" >"$work/said" 2>&1 || status=$?
    if [ $status != 0 ]; then tail -n 4 "$work/said" | sed 's/^/  /'; fi
    oom "$current" $status
    if [ $status != 0 ] && [ "$phase" = relieved ]; then
        deviates filesystem_consistent "$current: ended with $status"
    fi
}
""",
    ),
    "take": (
        ("step", "unable"),
        """\
# take STEP NAME DEVICE SNAPSHOT: the snapshot is taken anew, and holds what the device holds.
take() {
    step "$1"
    if ! "detach_$2" || ! "clear_$2" || ! "attach_$2"; then unable "the snapshot cannot be taken"; fi
    cp "$work/acknowledged.${3##*/}" "$work/acknowledged.${4##*/}"
}
""",
    ),
    "busy": (
        ("enter",),
        """\
# busy NAME CGROUP WRITES DEVICE OFFSET LENGTH REQUEST FLAGS: a bystander with I/O of its own, who is
# promised that all of it succeeds. WRITES: how often he writes before he reads for ever; 0: always.
# The file "pause" has him close the device once he is through with his round.
busy() {
    (
        enter "$2"
        rounds=0 call=
        exec 2>/dev/null
        while :; do
            while [ -e "$work/pause" ]; do sleep 0.1; done
            rounds=$((rounds + 1))
            if [ "$3" = 0 ] || [ $rounds -le "$3" ]; then
                call="write"
                dd if=/dev/zero of="$4" bs="$7" seek=$(($5 / $7)) count=$(($6 / $7)) oflag="$8" conv=notrunc
            else
                call="read"
                dd if="$4" of=/dev/null bs="$7" skip=$(($5 / $7)) count=$(($6 / $7)) iflag=direct
            fi || echo "$1: a $call of its own failed with dd's status $?" >>"$work/harmed"
        done
    ) &
    bystanders="$bystanders $1:$!"
}
""",
    ),
}
"""For each: the names of those that it calls, and its text."""
