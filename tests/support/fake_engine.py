"""An engine without machines: what becomes of a variant is decided by the id of its case.

``CONFORM_ENGINE=tests.support.fake_engine:engine`` puts it in place of the real one, in the command
line's workers as in pytest's. Its "machine" is a process that lives until it is killed, and so is the tool
that prepares the kernel ``slow``.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from conformance.engine import Parcel, Piece, Progress, Setup
from conformance.exits import HostLacks, Refused
from conformance.machine import tool
from conformance.model import (
    ArmSeen,
    Clause,
    Finding,
    Level,
    Observation,
    Status,
    Variant,
    Verdict,
)
from conformance.runner import STANDARD, Limits, Outcome

SECONDS_TO_LIVE = "600"
FIFO_VARIABLE = "CONFORM_FAKE_FIFO"
LOUD_VARIABLE = "CONFORM_FAKE_LOUD"
STALLS_VARIABLE = "CONFORM_FAKE_STALLS"
RELEASE_VARIABLE = "CONFORM_FAKE_RELEASE"
LACKS_VARIABLE = "CONFORM_FAKE_LACKS"
PIECE_VARIABLE = "CONFORM_FAKE_PIECE"
REFUSES_VARIABLE = "CONFORM_FAKE_REFUSES"
"""``once`` or ``always``: whether a kernel that was prepared can then not be opened."""


class FakeBench:
    """Answers by the third word of a case's id: ``fake_x_fails`` fails.

    ``fake_x_stalls`` hangs if ``CONFORM_FAKE_STALLS`` is set, and passes if not.
    A kernel that is a folder may have a file ``answer``, whose word is taken instead.
    """

    def __init__(self, kernel: str) -> None:
        self._kernel = kernel
        answer = Path(kernel) / "answer"
        self._answer = answer.read_text().strip() if answer.exists() else ""

    def run(self, variant: Variant, *, folder: Path, limits: Limits = STANDARD) -> Outcome:
        release = _release()
        console = folder / "consoles" / variant.id / "console.log"
        console.parent.mkdir(parents=True, exist_ok=True)
        console.write_text("Linux version 6.12.0-fake\n")
        must = Finding(
            clause=Clause.ERROR_SURFACED,
            level=Level.MUST,
            expected="an error",
            observed="silence",
            claims=("S1",),
            signature="silent",
            step="fill",
        )
        status = Status.PASS
        findings: tuple[Finding, ...] = ()
        reasons: tuple[str, ...] = ()
        match self._answer or variant.case.split("_")[2]:
            case "fails":
                status, findings = Status.FAIL, (must,)
            case "advised":
                findings = (
                    must.model_copy(update={"clause": Clause.ERRNO_PRECISE, "level": Level.SHOULD}),
                )
            case "wavers" if folder.name == "attempt-2":
                status, findings = Status.FAIL, (must,)
            case "broken":
                status, reasons = Status.BROKEN, ("the shortage never arrived",)
            case "skips":
                lacks = os.environ.get(LACKS_VARIABLE, "no module dm_thin_pool")
                status, reasons = Status.SKIP, (lacks, "no tool thin_check")
            case "recorded":
                status = Status.RECORDED
            case "raises":
                raise ValueError("a bug of the suite")
            case "dies":
                os._exit(9)
            case "hangs":
                self._hang()
            case "stalls" if STALLS_VARIABLE in os.environ:
                self._hang()
            case "waits":
                self._wait_once()
            case "stubborn":
                self._will_not_close()
        observation = Observation(
            case=variant.case,
            values=variant.values,
            kernel=self._kernel,
            release=release,
            arms=(ArmSeen(name="main", console=str(console.relative_to(folder))),),
        )
        verdict = Verdict(
            case=variant.case,
            values=variant.values,
            kernel=self._kernel,
            release=release,
            status=status,
            findings=findings,
            reasons=(*reasons, *_loud()),
            seconds={"total": 0.01},
        )
        return Outcome(plan=None, observation=observation, verdict=verdict)

    def probe(self, needs: Sequence[str], *, folder: Path) -> dict[str, str]:
        """A kernel that has no nbd and none of what has to be probed by trying."""
        lacks = ("module:nbd", "probe:")
        return {need: "not in this kernel" if need.startswith(lacks) else "" for need in needs}

    def close(self) -> None:
        pass

    def _hang(self) -> None:
        machine = subprocess.Popen(["sleep", SECONDS_TO_LIVE])
        try:
            _tell(f"{machine.pid}")
            machine.wait()
        finally:
            machine.kill()
            machine.wait()

    def _wait_once(self) -> None:
        """The first to come here tells its process, and waits to be killed; the next goes on."""
        if not _is_first("waited"):
            return
        _tell(f"{os.getpid()}")
        threading.Event().wait()

    def _will_not_close(self) -> None:
        try:
            _tell("running")
            signal.pause()
        finally:
            _tell("closing")
            threading.Event().wait()


def _is_first(name: str) -> bool:
    """Whether no process of this test has come here before."""
    try:
        Path(os.environ[FIFO_VARIABLE]).with_name(name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _loud() -> tuple[str, ...]:
    """Something long to be written into the record."""
    length = int(os.environ.get(LOUD_VARIABLE, "0"))
    return ("." * length,) if length else ()


def _release() -> str:
    return os.environ.get(RELEASE_VARIABLE, "6.12.0-fake")


def _tell(word: str) -> None:
    """A word for the test that waits at the other end of a FIFO."""
    with Path(os.environ[FIFO_VARIABLE]).open("w") as fifo:
        fifo.write(f"{word}\n")


class FakeEngine:
    """Knows every kernel but those that are called ``missing``, and lacks a tool for a ``toolless`` one.

    It opens what was prepared, here or by the engine that it was set up by, and nothing else.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._boots = dict(setup.boots)

    def prepare(self, kernel: str, progress: Progress) -> dict[str, object]:
        progress(f"preparing {kernel}")
        self._check(kernel)
        if kernel == "slow":
            tool.run(["sh", "-c", f'echo $$ >"${FIFO_VARIABLE}"; exec sleep {SECONDS_TO_LIVE}'])
        self._boots[kernel] = {"release": _release()}
        return {"kernel": kernel, "release": _release(), "speed": random.random()}

    def prepared(self) -> Setup:
        return self._setup.model_copy(update={"boots": self._boots})

    def open(self, kernel: str, progress: Progress) -> FakeBench:
        if kernel not in self._boots:
            raise Refused(f"{kernel} was never prepared")
        refuses = os.environ.get(REFUSES_VARIABLE)
        if refuses == "always" or (refuses == "once" and _is_first("refused")):
            raise HostLacks("no space left")
        return FakeBench(kernel)

    def pack(self, kernel: str, progress: Progress) -> tuple[Parcel, Mapping[str, Path]]:
        """One piece, whose content is known: what arrives elsewhere is held against it."""
        self._check(kernel)
        path = Path(os.environ[PIECE_VARIABLE]) if PIECE_VARIABLE in os.environ else Path(__file__)
        data = path.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        piece = Piece(name="piece", sha256=sha256, size=len(data))
        return Parcel(kernel=kernel, pieces=(piece,)), {sha256: path}

    def unpack(self, parcel: Parcel, find: Callable[[str], Path], progress: Progress) -> FakeBench:
        """Refuses a piece that is not what was packed."""
        for piece in parcel.pieces:
            if hashlib.sha256(find(piece.sha256).read_bytes()).hexdigest() != piece.sha256:
                raise Refused(f"{piece.name} is not what was packed")
        return FakeBench(parcel.kernel)

    def _check(self, kernel: str) -> None:
        if "missing" in kernel:
            raise Refused(f"no kernel {kernel}: neither a name nor a file or directory")
        if "toolless" in kernel:
            raise HostLacks("mmdebstrap is not installed: apt install mmdebstrap")
        for module in self._setup.modules:
            raise Refused(f"{module}: vermagic does not match 6.12.0-fake")


def engine(setup: Setup) -> FakeEngine:
    """What ``CONFORM_ENGINE`` names."""
    return FakeEngine(setup)
