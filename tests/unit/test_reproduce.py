"""Scripts made from variants: what they hold, what is refused, and that a shell takes them."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent.layers.fs import KINDS

from conformance.cli import main
from conformance.exits import REFUSED
from conformance.model import Variant
from conformance.reproduce import Inexpressible, script
from conformance.reproduce.functions import FUNCTIONS, chosen
from conformance.reproduce.rig import CHECK, MKFS, MKFS_ENV, MOUNT, QUOTA_OPTION
from conformance.session import open_library

LIBRARY = open_library(())
ROOT = Path(__file__).parents[2]


REFUSED_WITH: list[str] = []


def made() -> Iterator[tuple[Variant, str]]:
    for variant in LIBRARY.variants:
        try:
            yield variant, script(variant)
        except Inexpressible as error:
            REFUSED_WITH.append(str(error))


MADE = list(made())


def one(name: str) -> str:
    return next(text for variant, text in MADE if variant.id == name)


def test_most_of_what_it_is_for_can_be_made() -> None:
    families = {
        "loop_enospc": 30,
        "loop_memcg": 30,
        "loop_quota": 20,
        "post_kill_reuse": 20,
        "fs_on_loop_data": 30,
        "dm_thin": 30,
        "dm_snapshot": 16,
        "md_raid": 12,
        "zram": 4,
    }
    for family, least in families.items():
        assert len([v for v, _ in MADE if v.family == family]) >= least, family


def test_a_shell_takes_every_one(tmp_path: Path) -> None:
    for variant, text in MADE:
        (tmp_path / f"{variant.case}.sh").write_text(text)
    for path in tmp_path.iterdir():
        done = subprocess.run(["sh", "-n", path], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say(tmp_path: Path) -> None:
    # Enough of them to hold every function.
    held: set[str] = set()
    for variant, text in MADE:
        functions = {name for name in FUNCTIONS if FUNCTIONS[name].text in text}
        if functions - held:
            (tmp_path / f"{variant.case}.sh").write_text(text)
            held |= functions
    assert held == {*FUNCTIONS}
    done = subprocess.run(
        ["shellcheck", *sorted(tmp_path.iterdir())], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


def test_it_says_what_it_is() -> None:
    text = one("loop_enospc_short_write[1M-off]")
    head = text[: text.index("set -u")]
    assert text.startswith("#!/bin/sh\n# loop_enospc_short_write[1M-off]\n")
    assert "tmpfs_size (size 8M)" in head
    assert "write(2), RETURN VALUE" in head
    assert "# Judged: error_surfaced" in head
    assert "Not judged by this script: errno_precise" in head
    assert 'write fill provoke "$DEVICE" direct, 0 12582912 1048576 2 1048576' in text
    assert "python" not in text


def test_it_holds_only_what_it_calls() -> None:
    text = one("loop_enospc_short_write[1M-off]")
    assert "cgroups()" not in text
    assert "run()" not in text
    assert "reattach()" in text
    everything = chosen(FUNCTIONS)
    assert len(everything) == len(FUNCTIONS) - 1  # of two functions of one name, one
    assert [text for text in everything if "\nwithin()" in text] == [FUNCTIONS["patience"].text]
    assert "\nwithin()" in text


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("loop_enospc_memcg_limit[mmap-off]", "step control: dd does not submit by mmap"),
        ("loop_enospc_memcg_limit[fio_libaio-off]", "fio_libaio"),
        ("loop_equivalence[ext4]", "arms: it compares tmpfs_size, "),
        ("nbd_server_full", "shortage server_space: "),
        ("loop_memcg_bystanders", "bystander sibling: memory"),
        ("fs_on_loop_metadata_kinds", "the verb metadata"),
        ("loop_enospc_nfs_straddle", "layer over: an NFS mount"),
        ("loop_reuse_after_setup_killed[direct]", "layer device: a process that keeps"),
        ("loop_reuse_reattached[removed-direct]", "no command removes a loop device"),
        ("loop_memcg_unkillable_writer[direct-64K]", "dd faults for its own pages for ever"),
    ],
)
def test_what_cannot_be_made_is_named(name: str, told: str) -> None:
    variant = next(v for v in LIBRARY.variants if v.id.startswith(name))
    with pytest.raises(Inexpressible) as caught:
        script(variant)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_case_that_compares_several_has_a_script_of_each() -> None:
    variant = next(v for v in LIBRARY.variants if v.id == "loop_memcg_nested[direct]")
    texts = [script(variant, arm=arm.name) for arm in variant.arms]
    assert len(set(texts)) == len(texts) == 3
    assert all(
        f"\n# {variant.id}, arm {a.name}\n" in t for a, t in zip(variant.arms, texts, strict=True)
    )
    with pytest.raises(Inexpressible, match="arm x: there is none of that name: own, parent"):
        script(variant, arm="x")


def test_what_waits_for_ever_is_left_behind_and_has_a_limit_of_its_own() -> None:
    text = one("thin_queue_for_ever[direct]")
    assert "is left behind: 124" in text
    stuck, relieved = text[text.index("\nlimit=32\nwrite fill provoke") :].split("\nstep relieve\n")
    assert "write overwrite" in stuck
    assert "verify read_short" in stuck
    assert "\nlimit=" not in stuck[len("\nlimit=32") :]
    assert "\nlimit=240\nverify read_relieved" in relieved


def test_what_a_case_does_not_claim_is_no_deviation_in_its_script() -> None:
    disabled = one("snapshot_writer_overflows[buffered-P]")
    assert "\nwrite overwrite observe " in disabled
    assert "\nwrite again observe " in disabled
    claimed = one("loop_enospc_short_write[64K-off]")
    assert "\nwrite again recover " in claimed


def test_a_writer_that_goes_on_does_so_in_that_step_alone() -> None:
    text = one("isolation_reader_tmpfs_full[dsync]")
    assert "\ngoes_on=yes\nwrite fill provoke " in text
    assert "\ngoes_on=no\nwrite overwrite " in text


@pytest.mark.parametrize(("by", "flags"), [("direct", "direct,dsync"), ("dsync", "dsync")])
def test_a_bystander_s_writes_are_durable_as_the_suite_s_are(by: str, flags: str) -> None:
    assert f" 1048576 524288 65536 {flags}\n" in one(f"thin_neighbour_flush[{by}]")


def test_a_large_request_has_a_huge_page_as_the_suite_s_has() -> None:
    text = one("loop_enospc_btrfs_full[direct-1M-off]")
    assert "    export GLIBC_TUNABLES=" in text
    assert "\n# -- the rig\nhuge_pages\n" in text
    assert "GLIBC_TUNABLES" not in one("loop_enospc_short_write[64K-off]")


@pytest.mark.parametrize(
    ("when", "left"), [("short", ["lost.b"]), ("relieved", ["lost.a", "lost.b"])]
)
def test_what_cannot_be_read_from_swap_is_forgiven_until_the_relief(
    tmp_path: Path, when: str, left: list[str]
) -> None:
    text = one("loop_memcg_swap_full[buffered]")
    assert "\nverify read_short " in text
    assert "\nfrom_swap short\nwrite overwrite " in text
    assert "\nverify read_relieved " in text
    assert text.count("\nfrom_swap relieved\n") == 2
    (tmp_path / "lost.a").write_text("of 4096 bytes acknowledged at 0, cannot be read: EIO\n")
    (tmp_path / "lost.b").write_text("of 4096 bytes acknowledged at 0, 4096 read back as zeros\n")
    lines = (f"work={tmp_path} current=read", "oom() { echo $*; }", FUNCTIONS["from_swap"].text)
    done = subprocess.run(
        ["sh", "-u"],
        input="\n".join((*lines, f"from_swap {when}")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "read 0\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == left


def writers(folder: Path, goes_on: str) -> list[str]:
    """The shell's writer on four blocks of which the second cannot be written: what it acknowledged."""
    body = chosen(["write"])
    writer = next(text for text in body if "writer() {" in text)
    lines = [
        f"work={folder} ledger={folder}/ledger data={folder}/data target={folder}/device",
        f"cgroup='' flags=dsync, kill='' spared=no goes_on={goes_on} generation=1",
        "first=0 at=0 end=16384 request=4096 every=4096",
        'within() { shift; case "$*" in *seek=4096*) return 1 ;; esac; "$@"; }',
        writer[writer.index("writer() {") :],
        '(writer) || echo "status $?"',
    ]
    for name in ("data", "device"):
        (folder / name).write_bytes(bytes(16384))
    (folder / "ledger").write_text("")
    done = subprocess.run(
        ["sh", "-u"], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("status 1\n", "")
    return [line.split()[0] for line in (folder / "ledger").read_text().splitlines()]


def test_a_writer_goes_on_past_an_error_or_stops_at_it(tmp_path: Path) -> None:
    assert writers(tmp_path, "no") == ["0"]
    assert writers(tmp_path, "yes") == ["0", "8192", "12288"]


def test_every_refusal_names_a_part() -> None:
    words = ("arms", "layer ", "shortage ", "step ", "bystander ", "requires ")
    assert REFUSED_WITH
    assert [why for why in REFUSED_WITH if not why.startswith(words)] == []


def test_filesystems_are_made_as_the_guest_s_program_makes_them() -> None:
    assert {name: kind.mkfs for name, kind in KINDS.items()} == MKFS
    assert {name: kind.check for name, kind in KINDS.items()} == CHECK
    env = {name: tuple(f"{word}={value}" for word, value in k.env) for name, k in KINDS.items()}
    assert {name: words for name, words in env.items() if words} == MKFS_ENV
    assert {name: kind.mount for name, kind in KINDS.items() if kind.mount} == MOUNT
    assert {n: dict(kind.quota) for n, kind in KINDS.items() if kind.quota} == QUOTA_OPTION


# -- the ledger, in a shell -----------------------------------------------------------------------


def in_shell(folder: Path, lines: list[str]) -> str:
    functions = "".join(chosen(["ledger", "say"]))
    text = "\n".join([f"work={folder}", "ledger=$work/acknowledged", functions, *lines])
    done = subprocess.run(["sh", "-u"], input=text, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.stdout


def test_the_ledger_forgets_what_is_written_over(tmp_path: Path) -> None:
    """Against a model: one generation for each byte."""
    rng = random.Random(7)
    held: dict[int, int] = {}
    lines = [': >"$ledger"']
    for generation in range(1, 40):
        start, length = rng.randrange(60), rng.randrange(1, 20)
        lines.append(f"forget {start} {length}")
        for at in range(start, start + length):
            held.pop(at, None)
        if rng.random() < 0.7:
            lines.append(f'echo "{start} {length} {generation}" >>"$ledger"')
            held |= dict.fromkeys(range(start, start + length), generation)
        start, length = rng.randrange(60), rng.randrange(1, 6)
        whole = all(at in held for at in range(start, start + length))
        lines.append(f"covered {start} {length} && say yes || say no")
        lines.append(f"say {'yes' if whole else 'no'}")
    told = in_shell(tmp_path, lines).split()
    assert told[::2] == told[1::2]
    assert set(told) == {"yes", "no"}
    found: dict[int, int] = {}
    for line in (tmp_path / "acknowledged").read_text().splitlines():
        start, length, generation = map(int, line.split())
        assert length > 0
        assert not found.keys() & set(range(start, start + length))
        found |= dict.fromkeys(range(start, start + length), generation)
    assert found == held


# -- the command ----------------------------------------------------------------------------------


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "loop_enospc_short_write[1M-off]"]) == 0
    out = capsys.readouterr().out
    assert "# FAIL was seen on " in out
    assert "# PASS was seen on " in out
    to = tmp_path / "x.sh"
    assert main(["reproduce", "loop_memcg_seed_script", "--to", str(to)]) == 0
    assert to.stat().st_mode & 0o111
    assert to.read_text().endswith("finish\n")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("loop_enospc_short_write", "name one: loop_enospc_short_write[4K-off]"),
        ("loop_enospc_memcg_limit[mmap-off]", "cannot be a plain script: step control"),
        ("no_such_thing", "there is no case"),
    ],
)
def test_refusals(word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", word]) == REFUSED
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1
