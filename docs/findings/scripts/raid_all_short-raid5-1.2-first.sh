#!/bin/sh
# raid_all_short[raid5-1.2-first]
# A write to an array that has too few legs with space fails with an error, and the array serves
# on
#
# lkml:20200505062946.GH2005@dread.disaster.area: "it *must* return ENOSPC to the IO submitter to
# tell it the IO has failed"
#
# ┌──────────────────────────────────────────────────────────────────────────────────┐
# │ device: an md array over leg and other_leg and third, personality raid5, size 6M │
# ├──────────────────────────────────────────────────────────────────────────────────┤
# │ leg: a thin device, size 10M                                                     │
# ├──────────────────────────────────────────────────────────────────────────────────┤
# │ pool: a thin pool, data 64M                                                      │  ◄ thin_data (leave 3M)
# ├──────────────────────────────────────────────────────────────────────────────────┤
# │ disk: the disk                                                                   │
# └──────────────────────────────────────────────────────────────────────────────────┘
#
# ┌───────────────────────────────┐
# │ spare: a loop device          │
# ├───────────────────────────────┤
# │ spare_image: a file, size 10M │
# ├───────────────────────────────┤
# │ back: a tmpfs, size 64M       │
# └───────────────────────────────┘
#
# ┌────────────────────────────────────┐
# │ other_leg: a thin device, size 10M │
# └────────────────────────────────────┘  on pool, above
#
# ┌───────────────────────────────┐
# │ third: a loop device          │
# ├───────────────────────────────┤
# │ third_image: a file, size 10M │
# └───────────────────────────────┘  on back, above
#
# Judged: error_surfaced, limit_enforced, no_oom_kill, submitter_survives, bystanders_unharmed,
# acknowledged_readable, overwrite_in_place, bounded, reusable, kernel_sound.
# Not judged by this script: no_foreign_data, nothing_leaked.
# The contrary of overwrite_in_place is documented: md(4), RECOVERY: a device with a write error
# is disabled at once
# The contrary of reusable is documented: md(4), RECOVERY; BAD BLOCK LIST: a write to a known bad
# block may be ignored
# FAIL was seen on 5.10.0-46-cloud-amd64, 6.1.0-57-cloud-amd64, 6.12.118+deb13-cloud-amd64,
# 7.2.13+deb14-cloud-amd64, 7.3.4+deb13-cloud-amd64, 7.3-cloud-amd64.
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
spared=no goes_on=no resolves=no
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

# within CGROUP COMMAND...: a command there, for no longer than the limit.
within() {
    (
        enter "$1"
        shift
        exec timeout "$limit" "$@"
    )
}

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

# $ledger: OFFSET LENGTH GENERATION of what was written to a device and synced without an error.
# forget OFFSET LENGTH: a new write begins there, and nothing is promised of what was there before.
forget() {
    : >"$work/rest"
    while read -r off len gen; do
        if [ "$off" -lt "$1" ]; then
            stop=$((off + len))
            if [ "$stop" -gt "$1" ]; then stop=$1; fi
            echo "$off $((stop - off)) $gen" >>"$work/rest"
        fi
        if [ $((off + len)) -gt $(($1 + $2)) ]; then
            start=$off
            if [ "$start" -lt $(($1 + $2)) ]; then start=$(($1 + $2)); fi
            echo "$start $((off + len - start)) $gen" >>"$work/rest"
        fi
    done <"$ledger"
    mv "$work/rest" "$ledger"
}
# covered OFFSET LENGTH: whether all of that is acknowledged, and has its space.
covered() {
    sum=0
    while read -r off len gen; do
        start=$off stop=$((off + len))
        if [ "$start" -lt "$1" ]; then start=$1; fi
        if [ "$stop" -gt $(($1 + $2)) ]; then stop=$(($1 + $2)); fi
        if [ "$stop" -gt "$start" ]; then sum=$((sum + stop - start)); fi
    done <"$ledger"
    [ "$sum" -ge "$2" ]
}

# write STEP ROLE DEVICE FLAGS OFFSET LENGTH REQUEST GENERATION SYNC_EVERY CGROUP KILL
# dd writes data that is known, and a sync follows every SYNC_EVERY bytes, unless dd's FLAGS sync.
# KILL: the writer is killed at its first error, in its first sync, or after so many bytes.
write() {
    step "$1"
    role=$2 target=$3 flags=$4 at=$5 end=$(($5 + $6)) request=$7 generation=$8 every=$9
    shift 9
    cgroup=$1 kill=$2 first=$at data=$work/data.$generation ledger=$work/acknowledged.${target##*/}
    : >>"$ledger"
    had=no
    if covered "$at" $((end - at)); then had=yes; fi
    # An error of an earlier step that nobody was told of yet is not this one's.
    if [ "$role" != provoke ]; then
        within '' sync "$target" 2>/dev/null || say "  (an earlier error is told here)"
    fi
    forget "$at" $((end - at))
    dd if=/dev/urandom of="$data" bs=1M iflag=count_bytes count=$((end - at)) 2>/dev/null
    echo "$at" >"$data.at"
    : >"$work/said"
    status=0
    (writer) || status=$?
    sed -n "s/^dd: /  dd: /p; s/^sync: /  sync: /p" "$work/said"
    stored=0
    while read -r off len gen; do
        if [ "$gen" = "$generation" ]; then stored=$((stored + len)); fi
    done <"$ledger"
    say "  $stored of $((end - first)) bytes were acknowledged"
    if [ "$status" = 137 ] && [ -n "$kill" ] && [ -e "$work/killed" ]; then
        rm "$work/killed"
        say "  (the writer was killed by this script)"
        status=0
        if [ "$role" = provoke ]; then arrived=yes; fi
    fi
    oom "$current" "$status"
    case $role:$status in
    control:0 | provoke:0) ;;
    control:*) unable "the control failed without any shortage" ;;
    provoke:*)
        arrived=yes
        if [ "$resolves" = yes ]; then deviates resolved_by_waiting "$current: ended in an error"; fi
        ;;
    overwrite:[12])
        if [ $had = yes ]; then deviates overwrite_in_place "$current: failed, and had its space"; fi
        ;;
    overwrite:124)
        if [ $had = yes ]; then deviates overwrite_in_place "$current: waits, and had its space"; fi
        ;;
    recover:[12]) deviates reusable "$current: failed after the relief" ;;
    esac
    if [ "$role" = provoke ]; then gauge; fi
}
writer() {
    # An OOM killer must spare it: so the kernel cannot resolve the shortage by its death.
    if [ "$spared" = yes ]; then echo -1000 >/proc/self/oom_score_adj; fi
    exec 3<>"$target"
    failed=0
    while [ "$at" -lt "$end" ]; do
        size=$((end - at))
        if [ "$every" -gt 0 ] && [ "$size" -gt "$every" ]; then size=$every; fi
        case $kill in
        [0-9]*) if [ "$size" -gt $((first + kill - at)) ]; then size=$((first + kill - at)); fi ;;
        esac
        code=0
        within "$cgroup" dd if="$data" of="$target" bs="$request" skip=$((at - first)) seek="$at" \
            count="$size" iflag=skip_bytes,count_bytes oflag="$flags"seek_bytes conv=notrunc \
            2>"$work/dd" || code=$?
        cat "$work/dd" >>"$work/said"
        written=$(sed -n 's/^\([0-9]*\) bytes.*/\1/p' "$work/dd")
        if [ "$kill" = first_error ] && [ "$code" != 0 ]; then die; fi
        case $kill in [0-9]*) if [ $((at + size - first)) -ge "$kill" ]; then die; fi ;; esac
        synced=0
        if [ "$kill" = first_sync ]; then
            sync "$target" &
            sleep 0.05
            kill -9 $!
            die
        fi
        case $flags in
        *dsync*) ;;
        *) within "$cgroup" sync "$target" 2>>"$work/said" || synced=$? ;;
        esac
        if [ "$kill" = first_error ] && [ "$synced" != 0 ]; then die; fi
        if [ "$synced" = 0 ] && [ "${written:-0}" -gt 0 ]; then
            echo "$at $written $generation" >>"$ledger"
        fi
        if [ "$code" = 0 ]; then code=$synced; fi
        if [ "$code" != 0 ]; then
            failed=$code
            if [ "$goes_on" = no ] || [ "$code" -gt 2 ]; then exit "$code"; fi
        fi
        at=$((at + size))
    done
    exit "$failed"
}
# The writer, which has the device open, is killed.
# shellcheck disable=SC2016 # the inner shell's parent
die() { touch "$work/killed"; sh -c 'kill -9 $PPID'; }

# verify STEP DEVICE OFFSET LENGTH FILE...: what was acknowledged reads back, past the page cache of
# the device and of the files below it.
verify() {
    step "$1"
    dev=$2 begin=$3 stop=$(($3 + $4)) ledger=$work/acknowledged.${2##*/}
    shift 4
    : >>"$ledger"
    within '' sync "$dev" 2>/dev/null || say "  (an earlier error is told here)"
    within '' blockdev --flushbufs "$dev"
    for file; do dd if="$file" iflag=nocache count=0 2>/dev/null; done
    while read -r off len gen; do
        if [ $((off + len)) -le "$begin" ] || [ "$off" -ge "$stop" ]; then continue; fi
        lost=$work/lost.${dev##*/}.$off.$len.$gen
        from=$((off - $(cat "$work/data.$gen.at")))
        if within '' cmp -n "$len" -i "$from:$off" "$work/data.$gen" "$dev" >"$work/cmp" 2>&1; then
            rm -f "$lost"
            continue
        fi
        at=$(sed -n 's/.* differ: [a-z]* \([0-9]*\),.*/\1/p' "$work/cmp")
        if [ -z "$at" ]; then
            how="cannot be read: $(sed 's/^cmp: //' "$work/cmp")"
        elif cmp -s -n $((len - at + 1)) -i $((off + at - 1)):0 "$dev" /dev/zero; then
            how="$((len - at + 1)) bytes from byte $((off + at - 1)) on read back as zeros"
        else
            how="from byte $((off + at - 1)) on something else reads back"
        fi
        echo "of $len bytes acknowledged at $off, $how" >"$lost"
        say "  $(cat "$lost")"
    done <"$ledger"
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

# again STEP NAME: the device is detached and attached again.
again() {
    step "$1"
    if ! "detach_$2"; then
        deviates reusable "$current: the device cannot be detached"
    elif ! "attach_$2"; then
        deviates reusable "$current: the device cannot be attached again"
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
need dmesg timeout cmp dmsetup blkdiscard losetup mdadm lsblk

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
dm pool-tmeta "0 2048 linear $DISK_ 0" || unable "no linear device"
dd if=/dev/zero of="/dev/mapper/$dm.pool-tmeta" bs=4096 count=1 conv=fsync 2>/dev/null
later 'dm_gone pool-tdata'
dm pool-tdata "0 131072 linear $DISK_ 8192" || unable "no linear device"
later 'dm_gone pool'
attach_pool || unable "a thin pool cannot be made"
LEG="/dev/mapper/$dm.leg"
attach_leg() {
    dm leg "0 20480 thin /dev/mapper/$dm.pool 1"
}
detach_leg() {
    dm_gone leg || return 1
    :
}
dmsetup message "$dm.pool" 0 "create_thin 1" || unable "no thin device"
later 'dm_gone leg'
attach_leg || unable "a thin device cannot be made"
OTHER_LEG="/dev/mapper/$dm.other_leg"
attach_other_leg() {
    dm other_leg "0 20480 thin /dev/mapper/$dm.pool 2"
}
detach_other_leg() {
    dm_gone other_leg || return 1
    :
}
dmsetup message "$dm.pool" 0 "create_thin 2" || unable "no thin device"
later 'dm_gone other_leg'
attach_other_leg || unable "a thin device cannot be made"
BACK=$work/back && mkdir "$BACK"
later 'umount "$BACK"'
mount -t tmpfs -o size=67108864 none "$BACK" || unable 'no such tmpfs'
SPARE_IMAGE=$BACK/spare_image
: >"$SPARE_IMAGE"
truncate -s 10485760 "$SPARE_IMAGE" || unable "no such file"
SPARE=$(losetup -f) || unable "no loop device"
later 'detach "$SPARE" "$SPARE_IMAGE"'
attach "$SPARE" "$SPARE_IMAGE" off '' || unable "losetup failed"
THIRD_IMAGE=$BACK/third_image
: >"$THIRD_IMAGE"
truncate -s 10485760 "$THIRD_IMAGE" || unable "no such file"
THIRD=$(losetup -f) || unable "no loop device"
later 'detach "$THIRD" "$THIRD_IMAGE"'
attach "$THIRD" "$THIRD_IMAGE" off '' || unable "losetup failed"
attach_device() {
    md_assemble "$DEVICE" "$LEG" "$OTHER_LEG" "$THIRD"
}
detach_device() {
    mdadm --stop "$DEVICE" 2>/dev/null
}
modprobe -q raid456
array=100
while [ -e /sys/block/md$array ]; do array=$((array + 1)); done
DEVICE=/dev/md$array
mdadm --create "$DEVICE" --level=raid5 --raid-devices=3 --size=3072 --metadata=1.2 --assume-clean --run --bitmap=none --chunk=64 --data-offset=1024 \
    "$LEG" "$OTHER_LEG" "$THIRD" >/dev/null 2>&1 || unable "mdadm makes no array"
later 'mdadm --stop "$DEVICE" 2>/dev/null'
bystander outsider ''

# -- the steps
write control control "$DEVICE" direct, 5242880 1048576 65536 1 0 '' ''
verify control_read "$DEVICE" 5242880 1048576 "$DISK_" "$DISK_" "$THIRD" "$THIRD_IMAGE"
step impose
thin_others pool 65536 3145728
write fill provoke "$DEVICE" direct, 0 4194304 65536 2 1048576 '' ''
verify read_short "$DEVICE" 0 6291456 "$DISK_" "$DISK_" "$THIRD" "$THIRD_IMAGE"
write overwrite overwrite "$DEVICE" direct, 0 1048576 65536 3 0 '' ''
step relieve
dm_table pool-tdata "0 262144 linear $DISK_ 8192" || unable "it cannot be relieved"
# Writes that wait in the pool's queue are what it is given space for.
dm_table pool "0 262144 thin-pool /dev/mapper/$dm.pool-tmeta /dev/mapper/$dm.pool-tdata 128 0 1 error_if_no_space" --noflush || unable "it cannot be relieved"
thin_serves pool
again reattach_first device
verify read_relieved "$DEVICE" 0 6291456 "$DISK_" "$DISK_" "$THIRD" "$THIRD_IMAGE"
write again recover "$DEVICE" direct, 2097152 1048576 65536 4 0 '' ''
write refused_again recover "$DEVICE" direct, 0 4194304 65536 6 1048576 '' ''
verify read_again "$DEVICE" 0 6291456 "$DISK_" "$DISK_" "$THIRD" "$THIRD_IMAGE"
finish
