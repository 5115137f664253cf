"""What is warmed before a template is taken."""

from __future__ import annotations

from pathlib import Path

import pytest
from agent import warmth
from agent.basics import RigError


def test_a_program_needs_itself_and_its_libraries() -> None:
    files = warmth.needed("sh")
    assert any(path.endswith("/sh") for path in files)
    assert any("libc.so" in path for path in files)
    assert all(Path(path).is_file() for path in files)


def test_a_program_is_not_run_for_that(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran: list[dict[str, object]] = []

    def run(argv: list[str], **options: object) -> dict[str, object]:
        ran.append({"argv": argv, **options})
        return {
            "output": "\tlibx.so => /lib/libx.so (0x1)\n\t/lib64/ld.so (0x2)\n\tstatically linked"
        }

    monkeypatch.setattr(warmth, "run", run)
    assert warmth.needed("sh") >= {"/lib/libx.so", "/lib64/ld.so"}
    assert ran[0]["env"] == {"LD_TRACE_LOADED_OBJECTS": "1"}
    del tmp_path


def test_a_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "tool").write_bytes(bytes(3 << 20))
    assert warmth.read(str(tmp_path / "tool")) == 3 << 20


def test_what_a_kernel_or_an_image_lacks_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], **_: object) -> dict[str, object]:
        asked.append(argv)
        raise RigError("no such thing")

    monkeypatch.setattr(warmth, "run", run)
    took, wrong = warmth.warm()
    assert (took >= 0, wrong) == (True, "")
    assert [argv[1] for argv in asked[: len(warmth.MODULES)]] == list(warmth.MODULES)


def test_a_module_that_was_cut_off_half_way_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warmth, "run", lambda *_, **__: {"ended": {"timed_out": True}})
    _, wrong = warmth.warm()
    assert wrong == f"modprobe {warmth.MODULES[0]} did not end"
