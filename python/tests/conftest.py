"""What the tests share: the checkpoints of the source tree, and packs that the tool tunes once a run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def models() -> Path:
    return ROOT / "tests" / "models"


@pytest.fixture(scope="session")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Runs the tool, with a store of its own; what it prints. Times do not matter here."""
    store = tmp_path_factory.mktemp("store")

    def run(*arguments: str | os.PathLike[str]) -> str:
        environment = {**os.environ, "QUERNEL_CACHE": str(store), "QUERNEL_BUSY": "ignore"}
        done = subprocess.run(["quernel", *arguments], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture(scope="session")
def tune(tool: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A pack of a checkpoint or of problems, with the first kernels that the tuner tries."""

    def run(name: str, *what: str | os.PathLike[str]) -> Path:
        pack = tmp_path_factory.mktemp("packs") / f"{name}.qpack"
        tool("tune", *what, "--m", "1", "--budget", "1", "--no-dense", "--quiet", "-o", pack)
        return pack

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Each failing test with the command that runs it again."""
    for report in terminalreporter.stats.get("failed", []) + terminalreporter.stats.get("error", []):
        terminalreporter.write_line(f"again: python/tests/run {os.environ.get('QN_BUILD', 'build')} '{report.nodeid}'")
