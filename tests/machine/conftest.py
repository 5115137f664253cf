"""Real machines for the tests that need them: the default image, with the contract's own verbs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.machine.cache import Cache
from conformance.machine.image import BootFiles, Sources, prepare_boot
from conformance.machine.machines import QemuMachine, open_machine

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def contract_boot(tmp_path_factory: pytest.TempPathFactory) -> BootFiles:
    """What boots into the agent with mischief_session.py as its session."""
    agent = tmp_path_factory.mktemp("agent")
    shutil.copytree(Sources().agent, agent, dirs_exist_ok=True)
    shutil.copyfile(HERE / "mischief_session.py", agent / "session.py")
    kernel = os.environ.get("CONFORM_TEST_KERNEL", "debian/bookworm")
    return prepare_boot(kernel, cache=Cache.from_environ(), files=Sources(agent=agent))


@pytest.fixture(scope="session")
def template_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A cache for templates that goes with the tests."""
    return Cache(root=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def qemu_machine(contract_boot: BootFiles, template_cache: Cache) -> Iterator[QemuMachine]:
    """A machine whose guests are clones of a template."""
    machine = open_machine(contract_boot, cache=template_cache)
    yield machine
    machine.close()
