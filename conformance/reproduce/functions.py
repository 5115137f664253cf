"""The shell functions of a reproducing script, each by its name, with the names of those that it calls.

POSIX sh with GNU coreutils and diffutils, and util-linux. A script holds only what it needs of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from conformance.reproduce.device_functions import FUNCTIONS as MORE


@dataclass(frozen=True, kw_only=True)
class Function:
    """A function's text, and what it stands on."""

    text: str
    calls: tuple[str, ...] = ()


_CORE = {
    "say": Function(
        text="""\
say() { printf '%s\\n' "$*"; }
"""
    ),
    "unable": Function(
        calls=("say",),
        text="""\
# This cannot be run, or was not shown, here: neither PASS nor FAIL.
unable() { say "CANNOT TELL: $*"; exit 77; }
""",
    ),
    "later": Function(
        text="""\
# later COMMAND: cleanup runs it, before those that were noted earlier.
undo=
later() {
    undo="$1
$undo"
}
"""
    ),
    "deviates": Function(
        calls=("say",),
        text="""\
# deviates CLAUSE TEXT: the kernel does not do what it should.
deviates() { say "  $1: $2"; printf '%s: %s\\n' "$1" "$2" >>"$work/deviations"; }
""",
    ),
    "need": Function(
        calls=("unable",),
        text="""\
need() { for tool; do command -v "$tool" >/dev/null || unable "$tool is not installed"; done; }
""",
    ),
    "step": Function(
        calls=("say",),
        text="""\
# step NAME: what the kernel says from here on is said of this step.
step() { current=$1; say "$1"; number=$((number + 1)); echo "reproduce $$ step $number: $1" >/dev/kmsg; }
""",
    ),
    "enter": Function(
        text="""\
# enter CGROUP: the process that calls it goes there; with no name it stays where it is.
enter() { if [ -n "$1" ]; then echo 0 >"$groups/$1/cgroup.procs"; fi; }
"""
    ),
    "within": Function(
        calls=("enter",),
        text="""\
# within CGROUP COMMAND...: a command there, for no longer than the limit.
within() {
    (
        enter "$1"
        shift
        exec timeout "$limit" "$@"
    )
}
""",
    ),
    "oom": Function(
        calls=("step", "deviates", "say"),
        text="""\
# oom STEP STATUS: who invoked the OOM killer meanwhile, and whether the step's process was killed.
# A kernel worker that writes back must report a shortage of storage as an error, not by a kill. That
# a process which allocates memory for itself is killed is documented, and only told.
since() { dmesg | sed "1,/reproduce $$ step $number:/d"; }
oom() {
    invoker=$(since | sed -n 's/.*\\] \\(.*\\) invoked oom-killer:.*/\\1/p' | sort -u | tr '\\n' ' ')
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
""",
    ),
    "ledger": Function(
        text="""\
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
"""
    ),
    "write": Function(
        calls=("ledger", "within", "oom", "step", "deviates", "unable", "say", "gauge"),
        text="""\
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
        within "$cgroup" dd if="$data" of="$target" bs="$request" skip=$((at - first)) seek="$at" \\
            count="$size" iflag=skip_bytes,count_bytes oflag="$flags"seek_bytes conv=notrunc \\
            2>"$work/dd" || code=$?
        cat "$work/dd" >>"$work/said"
        written=$(sed -n 's/^\\([0-9]*\\) bytes.*/\\1/p' "$work/dd")
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
""",
    ),
    "readable": Function(
        calls=("deviates", "within"),
        text="""\
# readable STEP DEVICE OFFSET LENGTH: all of that can be read, written or not, past the page cache.
readable() {
    within '' dd if="$2" of=/dev/null bs=64K skip="$3" count="$4" \\
        iflag=direct,skip_bytes,count_bytes 2>"$work/dd" ||
        deviates reusable "$1: $(head -n 1 "$work/dd")"
}
""",
    ),
    "verify": Function(
        calls=("step", "say", "within"),
        text="""\
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
        at=$(sed -n 's/.* differ: [a-z]* \\([0-9]*\\),.*/\\1/p' "$work/cmp")
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
""",
    ),
    "from_swap": Function(
        calls=("verify", "oom"),
        text="""\
# from_swap short|relieved: what came back from swap was charged, by a worker, to a cgroup at its limit
# perhaps. That it cannot be read then is no loss: it is read again after the relief.
from_swap() {
    oom "$current" 0
    if [ "$1" = relieved ]; then return; fi
    for lost in "$work"/lost.*; do
        if [ -e "$lost" ] && grep -q 'cannot be read' "$lost"; then rm "$lost"; fi
    done
}
""",
    ),
    "run": Function(
        calls=("step", "oom", "within", "deviates", "unable", "gauge"),
        text="""\
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
""",
    ),
    "attach": Function(
        calls=("unable", "enter"),
        text="""\
# detach DEVICE FILE: unless it is not, or no longer, this file's.
detach() { if losetup -j "$2" | grep -q "^$1:"; then losetup -d "$1"; fi; }
# attach DEVICE FILE DIRECT_IO CGROUP
attach() {
    (enter "$4" && exec losetup --direct-io="$3" "$1" "$2") || return 1
    dio=$(cat "/sys/block/${1#/dev/}/loop/dio")
    if [ "$dio$3" = 0on ] || [ "$dio$3" = 1off ]; then unable "$1 cannot have direct I/O $3 here"; fi
}
""",
    ),
    "reattach": Function(
        calls=("attach", "step", "deviates"),
        text="""\
# reattach STEP DEVICE FILE DIRECT_IO CGROUP
detached() {
    tries=0
    while [ -e "/sys/block/${1#/dev/}/loop/backing_file" ]; do
        tries=$((tries + 1))
        if [ $tries -gt 50 ]; then return 1; fi
        sleep 0.1
    done
}
reattach() {
    step "$1"
    shift
    if ! losetup -d "$1" || ! detached "$1"; then
        deviates reusable "$current: the device cannot be detached"
    elif ! attach "$@"; then
        deviates reusable "$current: the device cannot be attached again"
    fi
}
""",
    ),
    "remove_cgroup": Function(
        calls=("step", "deviates"),
        text="""\
# remove_cgroup STEP CGROUP
remove_cgroup() {
    step "$1"
    tries=0
    until rmdir "$groups/$2" 2>/dev/null; do
        tries=$((tries + 1))
        if [ $tries -gt 50 ]; then
            deviates reusable "$current: the cgroup of processes that are gone cannot be removed"
            return
        fi
        sleep 0.1
    done
}
""",
    ),
    "cgroups": Function(
        calls=("unable", "later"),
        text="""\
# cgroups PATH...: below $groups, with the controllers that loop I/O is charged by.
cgroups() {
    top=/sys/fs/cgroup
    if ! [ -e $top/cgroup.controllers ]; then
        # Beside what is mounted there, if anything is, and not over it.
        top=$work/cgroup && groups=$top/${groups##*/} && mkdir "$top"
        later 'umount "$top"'
        mount -t cgroup2 none "$top" || unable "no cgroup v2"
    fi
    mkdir "$groups"
    later 'find "$groups" -depth -type d -exec rmdir {} \\;'
    for directory in "$top" "$groups"; do
        echo +memory +io >"$directory/cgroup.subtree_control" ||
            unable "the controllers memory and io cannot be had below $directory"
    done
    for path; do
        mkdir "$groups/$path"
        if [ "$path" != "${path%/*}" ]; then
            echo +memory +io >"$groups/${path%/*}/cgroup.subtree_control"
        fi
        if [ -e "$groups/$path/memory.swap.max" ]; then echo 0 >"$groups/$path/memory.swap.max"; fi
    done
}
""",
    ),
    "bystander": Function(
        calls=("enter",),
        text="""\
# bystander NAME CGROUP: it does no I/O, and must live to the end.
bystander() {
    (enter "$2" && exec sleep 3600) &
    bystanders="$bystanders $1:$!"
}
""",
    ),
    "hog": Function(
        calls=("unable",),
        text="""\
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
""",
    ),
    "huge": Function(
        calls=("unable", "later"),
        text="""\
# dd's buffer is a huge page, so that a large request is one segment, and may straddle the end of space.
# Eight are to be free; none that somebody else has reserved is taken away.
huge_pages() {
    huge_before=$(cat /proc/sys/vm/nr_hugepages) || unable "no huge pages"
    huge_lacking=$((8 - $(sed -n 's/^HugePages_Free: *//p' /proc/meminfo)))
    later 'echo "$huge_before" >/proc/sys/vm/nr_hugepages'
    if [ $huge_lacking -gt 0 ]; then
        echo $((huge_before + huge_lacking)) >/proc/sys/vm/nr_hugepages
    fi
    export GLIBC_TUNABLES=glibc.malloc.hugetlb=2
}
""",
    ),
    "finish": Function(
        calls=("say", "unable", "deviates"),
        text="""\
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
        printf 'acknowledged_readable: %s\\n' "$(cat "$lost")" >>"$work/deviations"
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
""",
    ),
}

FUNCTIONS = _CORE | {name: Function(text=text, calls=calls) for name, (calls, text) in MORE.items()}


def chosen(names: Iterable[str]) -> list[str]:
    """The texts of some functions with those that they stand on, in the order of the table."""
    wanted: set[str] = set()
    todo = list(names)
    while todo:
        name = todo.pop()
        if name not in wanted and name in FUNCTIONS:
            wanted.add(name)
            todo += FUNCTIONS[name].calls
    if "patience" in wanted:
        wanted.discard("within")  # another of that name
    return [function.text for name, function in FUNCTIONS.items() if name in wanted]
