#!/bin/sh
# raid_fs_fsynced_files[raid5]
# A filesystem on an array does not notice that one leg is out of space
#
# fsync(2), DESCRIPTION, RETURN VALUE
# lkml:20200505062946.GH2005@dread.disaster.area: "those errors have to be handled correctly by
# whatever is submitting the IO"
#
# ┌────────────────────────────────────────────────────────────────────────────────┐
# │ fs: a filesystem, type ext4                                                    │
# ├────────────────────────────────────────────────────────────────────────────────┤
# │ device: an md array over leg and spare and third, personality raid5, size 128M │
# ├────────────────────────────────────────────────────────────────────────────────┤
# │ leg: a thin device, size 132M                                                  │
# ├────────────────────────────────────────────────────────────────────────────────┤
# │ pool: a thin pool, data 192M, metadata 2M                                      │  ◄ thin_data (leave 3M)
# ├────────────────────────────────────────────────────────────────────────────────┤
# │ disk: the disk                                                                 │
# └────────────────────────────────────────────────────────────────────────────────┘
#
# ┌────────────────────────────────┐
# │ spare: a loop device           │
# ├────────────────────────────────┤
# │ spare_image: a file, size 132M │
# ├────────────────────────────────┤
# │ back: a tmpfs, size 288M       │
# └────────────────────────────────┘
#
# ┌────────────────────────────────┐
# │ third: a loop device           │
# ├────────────────────────────────┤
# │ third_image: a file, size 132M │
# └────────────────────────────────┘  on back, above
#
# Judged: no_oom_kill, submitter_survives, bystanders_unharmed, acknowledged_readable, bounded,
# reusable, resolved_by_waiting, filesystem_consistent, kernel_sound.
# Not judged by this script: no_foreign_data, nothing_leaked.
# FAIL was seen on 5.10.0-46-cloud-amd64, 6.1.0-57-cloud-amd64, 6.12.117+deb13-cloud-amd64,
# 7.2.13+deb14-cloud-amd64, 7.3-cloud-amd64, 7.3.4+deb13-cloud-amd64.
#
# Run it as root in a throwaway virtual machine. It ends with PASS (exit status 0), FAIL (1), or
# says why it cannot tell (77).
# DISK=/dev/vdX names a disk to be overwritten; without it a sparse file of 1G stands for one.
# shellcheck disable=SC2317 # functions are called by the trap, and by names in variables
# shellcheck disable=SC2016 # what is undone later
set -u
export LC_ALL=C
[ "$(id -u)" = 0 ] || { echo "CANNOT TELL: this needs root"; exit 77; }
work=$(mktemp -d) || { echo "CANNOT TELL: no temporary directory"; exit 77; }
groups=/sys/fs/cgroup/reproduce.$$
limit=240 number=0 arrived=no own=no bystanders='' current=
: >"$work/synced"

say() { printf '%s\n' "$*"; }

# This cannot be run, or was not shown, here: neither PASS nor FAIL.
unable() { say "CANNOT TELL: $*"; exit 77; }

# later COMMAND: cleanup runs it, before those that were noted earlier.
undo=
later() {
    undo="$1
$undo"
}

# deviates CLAUSE TEXT: the kernel does not do what it should.
deviates() { say "  $1: $2"; printf '%s: %s\n' "$1" "$2" >>"$work/deviations"; }

need() { for tool; do command -v "$tool" >/dev/null || unable "$tool is not installed"; done; }

# step NAME: what the kernel says from here on is said of this step.
step() { current=$1; say "$1"; number=$((number + 1)); echo "reproduce $$ step $number: $1" >/dev/kmsg; }

# enter CGROUP: the process that calls it goes there; with no name it stays where it is.
enter() { if [ -n "$1" ]; then echo 0 >"$groups/$1/cgroup.procs"; fi; }

# oom STEP STATUS: who invoked the OOM killer meanwhile, and whether the step's process was killed.
# A kernel worker that writes back must report a shortage of storage as an error, not by a kill. That
# a process which allocates memory for itself is killed is documented, and only told.
since() { dmesg | sed "1,/reproduce $$ step $number:/d"; }
oom() {
    invoker=$(since | sed -n 's/.*\] \(.*\) invoked oom-killer:.*/\1/p' | sort -u | tr '\n' ' ')
    case $invoker in
    *kworker* | *loop*) deviates no_oom_kill "$1: the OOM killer was invoked by ${invoker% }" ;;
    ?*) say "  (the OOM killer was invoked by ${invoker% }, in a call of its own)" ;;
    esac
    if [ "$2" = 137 ]; then
        case $invoker in
        '' | *kworker* | *loop*) deviates submitter_survives "$1: the process was killed" ;;
        *) say "  (the process was killed)" && own=yes ;;
        esac
    elif [ "$2" = 124 ]; then
        deviates bounded "$1: did not end within $limit s"
    fi
}

# detach DEVICE FILE: unless it is not, or no longer, this file's.
detach() { if losetup -j "$2" | grep -q "^$1:"; then losetup -d "$1"; fi; }
# attach DEVICE FILE DIRECT_IO CGROUP
attach() {
    (enter "$4" && exec losetup --direct-io="$3" "$1" "$2") || return 1
    dio=$(cat "/sys/block/${1#/dev/}/loop/dio")
    if [ "$dio$3" = 0on ] || [ "$dio$3" = 1off ]; then unable "$1 cannot have direct I/O $3 here"; fi
}

# bystander NAME CGROUP: it does no I/O, and must live to the end.
bystander() {
    (enter "$2" && exec sleep 3600) &
    bystanders="$bystanders $1:$!"
}

# The bystanders, the kernel's own complaints, and the verdict.
finish() {
    for one in $bystanders; do
        kill -0 "${one#*:}" 2>/dev/null || deviates bystanders_unharmed "${one%:*} was killed"
    done
    if [ -e "$work/harmed" ]; then
        sort -u "$work/harmed" | sed 's/^/bystanders_unharmed: /' >>"$work/deviations"
    fi
    for lost in "$work"/lost.*; do
        [ -e "$lost" ] || continue
        printf 'acknowledged_readable: %s\n' "$(cat "$lost")" >>"$work/deviations"
    done
    dmesg | sed "1,/reproduce $$ step 1:/d" >"$work/log"
    complaints='BUG: |WARNING: |Oops|general protection fault|INFO: task .* blocked for|soft lockup'
    if grep -E "$complaints" "$work/log" >"$work/complaints"; then
        deviates kernel_sound "$(head -n 1 "$work/complaints")"
    fi
    say
    if [ -s "$work/deviations" ]; then
        say "On $(uname -r):"
        sed 's/^/  /' "$work/deviations"
        say FAIL
        exit 1
    fi
    if [ "$own" = yes ]; then
        unable "a process was killed in an allocation of its own, as is documented"
    elif [ "$arrived" = no ]; then
        unable "the shortage never came: nothing failed, and the limit was not met"
    fi
    say "PASS on $(uname -r)"
    exit 0
}

# dm NAME TABLE: a device of the device mapper. dm_gone NAME: it is removed.
dm=reproduce-$$
# Without udev nobody but dmsetup makes the nodes.
[ -S /run/udev/control ] || export DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1
dm() { dmsetup create "$dm.$1" --table "$2"; }
dm_gone() { dmsetup remove --retry "$dm.$1"; }

# dm_table NAME TABLE [--noflush]: it gets another table.
dm_table() {
    dmsetup reload "$dm.$1" --table "$2" || unable "the device mapper takes no other table for $1"
    # shellcheck disable=SC2086 # no word, or one
    dmsetup suspend --nolockfs ${3-} "$dm.$1"
    dmsetup resume "$dm.$1"
}

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
    dd if=/dev/zero of="/dev/mapper/$dm.others" bs="$2" count=$((thin_taken / $2)) \
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
        within "$cgroup" dd if="$work/files/$name" of="$top/$name" bs="$size" conv="notrunc$end" \
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

# gauge: the shortage has come where the pool has no chunk left.
gauge() {
    if thin pool && [ "$thin_used" = "$thin_chunks" ]; then arrived=yes; fi
}
cleanup() {
    trap - EXIT
    # To its end, and in silence: whoever read this may be gone.
    trap '' HUP INT PIPE TERM
    exec >/dev/null
    for one in $bystanders; do kill -9 "${one#*:}" 2>/dev/null; done
    eval "$undo"
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 77' HUP INT PIPE TERM

modprobe -q dm_thin_pool || [ -d /sys/module/dm_thin_pool ] || unable 'no module dm_thin_pool'
modprobe -q loop || [ -d /sys/module/loop ] || unable 'no module loop'
modprobe -q raid456 || [ -d /sys/module/raid456 ] || unable 'no module raid456'
modprobe -q ext4
grep -qw ext4 /proc/filesystems || unable 'no filesystem ext4'
need dmesg timeout cmp dmsetup blkdiscard losetup mdadm lsblk mkfs.ext4 e2fsck

# -- the rig
DISK_=${DISK-}
if [ -z "$DISK_" ]; then
    truncate -s 1G "$work/disk"
    DISK_=$(losetup -f --show "$work/disk") || unable "no loop device"
    later 'losetup -d "$DISK_"'
fi
attach_pool() {
    sectors=$(blockdev --getsz "/dev/mapper/$dm.pool-tdata")
    dm pool "0 $sectors thin-pool /dev/mapper/$dm.pool-tmeta /dev/mapper/$dm.pool-tdata 128 0 1 error_if_no_space"
}
detach_pool() {
    dm_gone pool
}
modprobe -q dm-thin-pool
later 'dm_gone pool-tmeta'
dm pool-tmeta "0 4096 linear $DISK_ 0" || unable "no linear device"
dd if=/dev/zero of="/dev/mapper/$dm.pool-tmeta" bs=4096 count=1 conv=fsync 2>/dev/null
later 'dm_gone pool-tdata'
dm pool-tdata "0 393216 linear $DISK_ 16384" || unable "no linear device"
later 'dm_gone pool'
attach_pool || unable "a thin pool cannot be made"
LEG="/dev/mapper/$dm.leg"
attach_leg() {
    [ -e "/dev/mapper/$dm.pool" ] || attach_pool || return 1
    dm leg "0 270336 thin /dev/mapper/$dm.pool 1"
}
detach_leg() {
    dm_gone leg || return 1
    detach_pool
}
dmsetup message "$dm.pool" 0 "create_thin 1" || unable "no thin device"
later 'dm_gone leg'
attach_leg || unable "a thin device cannot be made"
BACK=$work/back && mkdir "$BACK"
later 'umount "$BACK"'
mount -t tmpfs -o size=301989888 none "$BACK" || unable 'no such tmpfs'
SPARE_IMAGE=$BACK/spare_image
: >"$SPARE_IMAGE"
truncate -s 138412032 "$SPARE_IMAGE" || unable "no such file"
SPARE=$(losetup -f) || unable "no loop device"
later 'detach "$SPARE" "$SPARE_IMAGE"'
attach "$SPARE" "$SPARE_IMAGE" off '' || unable "losetup failed"
THIRD_IMAGE=$BACK/third_image
: >"$THIRD_IMAGE"
truncate -s 138412032 "$THIRD_IMAGE" || unable "no such file"
THIRD=$(losetup -f) || unable "no loop device"
later 'detach "$THIRD" "$THIRD_IMAGE"'
attach "$THIRD" "$THIRD_IMAGE" off '' || unable "losetup failed"
attach_device() {
    md_assemble "$DEVICE" "$LEG" "$SPARE" "$THIRD"
}
detach_device() {
    mdadm --stop "$DEVICE" 2>/dev/null
}
modprobe -q raid456
array=100
while [ -e /sys/block/md$array ]; do array=$((array + 1)); done
DEVICE=/dev/md$array
mdadm --create "$DEVICE" --level=raid5 --raid-devices=3 --size=65536 --metadata=1.2 --assume-clean --run --bitmap=none --chunk=64 --data-offset=1024 \
    "$LEG" "$SPARE" "$THIRD" >/dev/null 2>&1 || unable "mdadm makes no array"
later 'mdadm --stop "$DEVICE" 2>/dev/null'
FS=$work/fs && mkdir "$FS"
mkfs.ext4 -q -F -m 0 -E nodiscard,lazy_itable_init=1 "$DEVICE" >/dev/null || unable "mkfs.ext4 failed"
mount_fs() {
    within '' mount -t ext4 -o noinit_itable "$DEVICE" "$FS"
}
later 'umount "$FS"'
mount_fs || unable 'it cannot be mounted'
bystander outsider ''

# -- the steps
files control control "$FS" control 512000 1 '' fsync ''
verify_files control_read "$FS"
step impose
thin_others pool 65536 3145728
files fill provoke "$FS" fill 512000 16 '' fsync ''
verify_files read_short "$FS"
filesystem unmount_short short umount "$FS"
step relieve
dm_table pool-tdata "0 786432 linear $DISK_ 16384" || unable "it cannot be relieved"
# Writes that wait in the pool's queue are what it is given space for.
dm_table pool "0 786432 thin-pool /dev/mapper/$dm.pool-tmeta /dev/mapper/$dm.pool-tdata 128 0 1 error_if_no_space" --noflush || unable "it cannot be relieved"
thin_serves pool
filesystem mount_relieved relieved mount_fs
filesystem unmount_relieved relieved umount "$FS"
filesystem check relieved e2fsck -fn "$DEVICE"
filesystem mount_again relieved mount_fs
verify_files read_relieved "$FS"
files again recover "$FS" again 512000 2 '' fsync ''
verify_files read_again "$FS"
finish
