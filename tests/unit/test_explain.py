"""``explain``: what it shows of a case, and that a name that is not there gets the nearest ones."""

from __future__ import annotations

import lzma
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.commands.explain import NORM, clause_texts
from conformance.drawing import stack, step_words
from conformance.exits import REFUSED
from conformance.model import Arm, Clause, Impose, TmpfsSize
from conformance.published import lacking, verdicts_of
from conformance.record import RecordError
from conformance.session import PUBLISHED, open_library

LIBRARY = open_library(())


def explained(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["explain", *words]) == 0
    return capsys.readouterr().out


def test_everything_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(capsys, "loop_enospc_short_write[1M-off]")
    for told in (
        "loop_enospc_short_write[1M-off]",
        "cases/loop_enospc/loop_enospc_short_write.yaml:1",
        "S5  What was written",
        "write(2), RETURN VALUE",
        "module:loop",
        "│ back: a tmpfs, size 64M │  ◄ tmpfs_size (size 8M)",
        "sync every 1M",
        "acknowledged_readable *",
        "results/known/loop_short_write.yaml",
        "debian/trixie",
        "error_surfaced (lost-in-silence)",
        "A pad file of 300 KiB",
    ):
        assert told in out, told
    assert "64K-off" not in out


def test_a_case_shows_all_its_variants(capsys: pytest.CaptureFixture[str]) -> None:
    out = explained(capsys, "loop_enospc_short_write")
    assert "request: 4K, 64K, 1M; loop_dio: off, on" in out
    assert "64K-off" in out


def test_every_case_can_be_drawn() -> None:
    for variant in LIBRARY.variants:
        for arm in variant.arms:
            drawn = "\n".join(stack(arm))
            missing = [la.name for la in arm.layers if f"{la.name}: {la.SORT}" not in drawn]
            assert (variant.id, missing) == (variant.id, [])
            assert all(isinstance(step_words(step), str) for step in arm.steps)


def test_a_layer_over_two_is_drawn_over_both() -> None:
    variant = next(v for v in LIBRARY.variants if v.case == "cache_origin_short")
    drawn = "\n".join(stack(variant.arms[0]))
    assert "device: a dm-cache device over leg and spare" in drawn
    assert drawn.count("spare: a loop device") == 1


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("loop_enospc_short_wirte", "did you mean loop_enospc_short_write"),
        ("short_write", "loop_enospc_short_write"),
        ("loop_enospc_short_write[2M-off]", "loop_enospc_short_write[1M-off]"),
        ("xyzzy", "there is no case 'xyzzy'\n"),
    ],
)
def test_a_name_that_is_not_there(word: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", word]) == REFUSED
    err = capsys.readouterr().err
    assert told in err
    assert err.count("\n") == 1


def test_every_clause_has_its_text() -> None:
    texts = clause_texts(NORM.read_text())
    assert set(texts) >= {clause.value for clause in Clause}
    assert not any("](" in text for text in texts.values())


def test_a_layer_that_several_stand_on_is_drawn_once() -> None:
    variant = next(v for v in LIBRARY.variants if v.id == "loop_enospc_short_write[4K-off]")
    drawn = "\n".join(stack(variant.arms[0]))
    assert drawn.count("back: a tmpfs") == 1
    assert "on back, above" in drawn


def test_a_shortage_of_no_layer_and_no_cgroup_is_told_below() -> None:
    variant = next(v for v in LIBRARY.variants if v.id == "loop_memcg_seed_script")
    arm = variant.arms[0]
    assert not any("memcg" in line for line in stack(arm))  # it stands beside its cgroup
    assert stack(arm.model_copy(update={"cgroups": ()}))[-1].startswith("short: memcg")
    other = Arm(
        layers=arm.layers,
        shortage=TmpfsSize(kind="tmpfs_size", layer="back", size=1 << 20),
        steps=(Impose(name="impose", verb="impose"),),
    )
    assert any("◄ tmpfs_size (size 1M)" in line for line in stack(other))


# -- published records ----------------------------------------------------------------------------


def test_the_history_is_what_the_records_say() -> None:
    found = verdicts_of(PUBLISHED, "loop_enospc_short_write")
    assert {verdict.kernel for verdict in found} >= {"debian/trixie", "debian/bookworm"}
    assert verdicts_of(PUBLISHED, "loop_enospc_short") == ()
    assert "probe:loop_charges_memcg" in lacking(PUBLISHED)["debian/bullseye"]


def test_a_record_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    damaged = tmp_path / "a.jsonl.xz"
    damaged.write_bytes(b"not compressed")
    with pytest.raises(RecordError, match="a.jsonl.xz"):
        verdicts_of(tmp_path, "x")
    damaged.write_bytes(lzma.compress(b'{"kind":"verdict","case":"x",]\n'))
    with pytest.raises(RecordError, match=r"a.jsonl.xz:1: "):
        verdicts_of(tmp_path, "x")
