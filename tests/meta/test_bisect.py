"""``conform bisect`` as git calls it: made-up kernels, made-up machines, the real ``git bisect run``."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from conformance.commands.bisect import BAD, CANNOT_TELL, GOOD, STOP
from tests.meta.conftest import ROOT, User

CASE = "fake_a_passes"


def step(user: User, tree: Path, *words: str, k: str = CASE) -> subprocess.CompletedProcess[str]:
    return user.conform(
        "bisect", str(tree), "-k", k, "--cases", str(user.cases), "--out", str(user.out), *words
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "linux"
    folder.mkdir()
    return folder


@pytest.mark.parametrize(
    ("answer", "words", "code"),
    [
        ("passes", (), GOOD),
        ("fails", (), BAD),
        ("wavers", ("--repeat", "2"), BAD),
        ("broken", (), CANNOT_TELL),
        ("skips", (), CANNOT_TELL),
        ("recorded", (), CANNOT_TELL),
        ("passes", ("--build", "exit 2"), CANNOT_TELL),
        ("broken", ("--build", "echo fails > answer"), BAD),
        ("passes", ("--until-fixed",), BAD),
        ("fails", ("--until-fixed",), GOOD),
        ("broken", ("--until-fixed",), CANNOT_TELL),
    ],
)
def test_what_git_is_told(
    user: User, tree: Path, answer: str, words: tuple[str, ...], code: int
) -> None:
    user.has(CASE)
    (tree / "answer").write_text(answer)
    done = step(user, tree, *words)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr


def test_a_kernel_that_does_not_boot_cannot_be_told(user: User, tmp_path: Path) -> None:
    user.has(CASE)
    (tmp_path / "missing").mkdir()
    done = step(user, tmp_path / "missing")
    assert done.returncode == CANNOT_TELL
    assert "cannot tell: no kernel " in done.stderr


def test_a_host_on_which_no_kernel_would_boot_stops(user: User, tmp_path: Path) -> None:
    user.has(CASE)
    (tmp_path / "toolless").mkdir()
    done = step(user, tmp_path / "toolless")
    assert done.returncode == STOP
    assert "the bisection stops: mmdebstrap is not installed" in done.stderr


@pytest.mark.parametrize(
    ("words", "k"),
    [((), "nothing_is_called_this"), ((), ""), (("--nonsense",), CASE), (("-n", "0"), CASE)],
)
def test_a_mistake_stops_and_steers_nothing(
    user: User, tree: Path, words: tuple[str, ...], k: str
) -> None:
    user.has(CASE)
    assert step(user, tree, *words, k=k).returncode == STOP


def test_a_tree_that_is_not_there_stops(user: User, tmp_path: Path) -> None:
    assert step(user, tmp_path / "nowhere").returncode == STOP


def test_git_finds_the_commit(user: User, tree: Path) -> None:
    user.has(CASE)
    answers = ("passes", "passes", "skips", "fails", "fails")
    git(tree, "init", "-q", "-b", "main")
    for number, answer in enumerate(answers):
        (tree / "answer").write_text(answer)
        (tree / "number").write_text(str(number))
        git(tree, "add", ".")
        git(tree, "commit", "-qm", f"commit {number} {answer}")
    git(tree, "bisect", "start", "HEAD", "HEAD~4")
    conform = shlex.join(
        [*user.conformance, "bisect", str(tree), "-k", CASE, "--cases", str(user.cases)]
    )
    # From the checkout, as `python -m` needs; each step writes a folder of its own.
    runs = tree.parent / "runs"
    script = f'mkdir -p {runs}; cd {ROOT}; exec {conform} --out "$(mktemp -d -p {runs})"'
    done = subprocess.run(
        ["git", "-C", str(tree), "bisect", "run", "sh", "-c", script],
        env=user.env,
        capture_output=True,
        text=True,
        check=False,
    )
    # What cannot be told is left open with the first that deviates, and nothing else is.
    told = done.stdout + done.stderr
    assert "only 'skip'ped commits left to test" in told
    left = told.partition("could be any of:")[2]
    shas = git(tree, "log", "--reverse", "--format=%H", "main").split()
    assert [sha in left for sha in shas] == [False, False, True, True, False]


def git(tree: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, "-C", str(tree), *words], capture_output=True, text=True, check=True
    )
    return done.stdout
