#!/bin/sh
# fs_on_loop_sync_while_short[ext4_errors_remount_ro]
# What fsync acknowledged outlasts somebody's sync(1) while the device under it is short
#
# fsync(2), DESCRIPTION, RETURN VALUE
# sync(2), DESCRIPTION: "causes all pending modifications to filesystem metadata and cached file
# data"
# lkml:20200505062946.GH2005@dread.disaster.area: "those errors have to be handled correctly by
# whatever is submitting the IO"
#
# ┌──────────────────────────────────────────────────────────────┐
# │ fs: a filesystem, type ext4, mount options errors=remount-ro │
# ├──────────────────────────────────────────────────────────────┤
# │ device: a loop device                                        │
# ├──────────────────────────────────────────────────────────────┤
# │ image: a file, size 128M                                     │
# ├──────────────────────────────────────────────────────────────┤
# │ back: a tmpfs, size 256M                                     │  ◄ hog (leave 6300K)
# └──────────────────────────────────────────────────────────────┘
#
# Judged: no_oom_kill, submitter_survives, bystanders_unharmed, acknowledged_readable, bounded,
# reusable, filesystem_consistent, kernel_sound.
# Not judged by this script: no_foreign_data, nothing_leaked.
# FAIL was seen on 5.10.0-46-cloud-amd64, 6.1.0-57-cloud-amd64, 6.12.118+deb13-cloud-amd64.
# PASS was seen on 7.2.13+deb14-cloud-amd64, 7.3.4+deb13-cloud-amd64, 7.3-cloud-amd64.
#
# Run it as root in a throwaway virtual machine. It ends with PASS (exit status 0), FAIL (1), or
# says why it cannot tell (77).
# shellcheck disable=SC2317 # functions are called by the trap, and by names in variables
# shellcheck disable=SC2016 # what is undone later
set -u
export LC_ALL=C
[ "$(id -u)" = 0 ] || { echo "CANNOT TELL: this needs root"; exit 77; }
work=$(mktemp -d) || { echo "CANNOT TELL: no temporary directory"; exit 77; }
groups=/sys/fs/cgroup/reproduce.$$
limit=240 number=0 arrived=no own=no bystanders='' current=
request=''
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

# run STEP ROLE CGROUP COMMAND...
run() {
    step "$1"
    role=$2 cgroup=$3
    shift 3
    status=0
    within "$cgroup" "$@" >"$work/said" 2>&1 || status=$?
    sed 's/^/  /' "$work/said"
    oom "$current" "$status"
    case $role:$status in
    control:0 | provoke:0 | provoke:137) ;;
    control:*) unable "the control failed without any shortage" ;;
    provoke:*) arrived=yes ;;
    recover:[1-9]*) deviates reusable "$current: failed after the relief (status $status)" ;;
    esac
    if [ "$role" = provoke ]; then gauge; fi
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

# hog DIRECTORY LEAVE: somebody else's file takes all space but LEAVE bytes.
hog() {
    size=0 tries=0
    while :; do
        room=$(($(stat -f -c '%a * %S' "$1")))
        excess=$(((room - $2) / 4096 * 4096))
        if [ $excess -eq 0 ] || [ $tries -eq 40 ]; then break; fi
        tries=$((tries + 1))
        if [ $excess -gt 0 ]; then
            fallocate -o $size -l $excess "$1/hog" || unable "$1 cannot be filled"
        else
            truncate -s $((size + excess)) "$1/hog"
        fi
        size=$((size + excess))
        sync -f "$1"
    done
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

# gauge: the shortage has come where no request fits any more.
gauge() {
    room=$(($(stat -f -c "%a * %S" "$BACK") - 65536))
    if [ "$room" -lt "${request:-4096}" ]; then arrived=yes; fi
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

modprobe -q loop || [ -d /sys/module/loop ] || unable 'no module loop'
modprobe -q ext4
grep -qw ext4 /proc/filesystems || unable 'no filesystem ext4'
need dmesg timeout cmp fallocate losetup mkfs.ext4 sync e2fsck

# -- the rig
BACK=$work/back && mkdir "$BACK"
later 'umount "$BACK"'
mount -t tmpfs -o size=268435456 none "$BACK" || unable 'no such tmpfs'
IMAGE=$BACK/image
: >"$IMAGE"
truncate -s 134217728 "$IMAGE" || unable "no such file"
DEVICE=$(losetup -f) || unable "no loop device"
later 'detach "$DEVICE" "$IMAGE"'
attach "$DEVICE" "$IMAGE" off '' || unable "losetup failed"
FS=$work/fs && mkdir "$FS"
mkfs.ext4 -q -F -m 0 -E nodiscard,lazy_itable_init=1 "$DEVICE" >/dev/null || unable "mkfs.ext4 failed"
mount_fs() {
    within '' mount -t ext4 -o noinit_itable,errors=remount-ro "$DEVICE" "$FS"
}
later 'umount "$FS"'
mount_fs || unable 'it cannot be mounted'
bystander outsider ''

# -- the steps
files control control "$FS" control 2048000 1 '' fsync ''
verify_files control_read "$FS"
step impose
hog "$BACK" 6451200
files fill provoke "$FS" fill 2048000 40 '' fsync ''
run whole_sync reuse '' sync
filesystem unmount_short short umount "$FS"
step relieve
rm "$BACK/hog" || unable "it cannot be relieved"
sync -f "$BACK"
filesystem mount_relieved relieved mount_fs
filesystem unmount_relieved relieved umount "$FS"
filesystem check relieved e2fsck -fn "$DEVICE"
filesystem mount_again relieved mount_fs
verify_files read_relieved "$FS"
files again recover "$FS" again 2048000 2 '' fsync ''
verify_files read_again "$FS"
finish
