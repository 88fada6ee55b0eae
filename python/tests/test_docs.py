"""The programs of docs/python.md, as they stand there, and the example."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import ROOT


@pytest.fixture(scope="module")
def folder(tune: Callable[..., Path], models: Path) -> Path:
    """Where the page's commands run: with a pack, and the source tree's tests."""
    made = tune("tiny", models / "tiny-llama-gptq4").parent
    (made / "tests").symlink_to(ROOT / "tests")
    return made


def output(folder: Path, *command: str) -> str:
    done = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def program(name: str) -> str:
    page = (ROOT / "docs" / "python.md").read_text()
    found = re.search(f"<!-- file: {name} -->\n```python\n(.*?)```", page, re.S)
    assert found, name
    return found[1]


def test_product(folder: Path) -> None:
    text = output(folder, "-c", program("product.py"))
    assert text.startswith("int4.g128:768x256:bf16-f32 EXACT host."), text
    assert text.endswith("(2, 768)\n"), text


def test_text(folder: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    text = output(folder, "-c", program("text.py"))
    assert re.fullmatch(r"[1-9]\d+ bytes\n\[73, 110(, \d+){1,16}\]\n", text), text


def test_tokens_per_second(folder: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    example = ROOT / "python" / "examples" / "tokens_per_second.py"
    small = ("--tokens", "2", "--prompt", "2", "--rounds", "1")
    text = output(folder, str(example), "tests/models/tiny-llama-gptq4", "tiny.qpack", *small)
    names = [line[:14].strip() for line in text.splitlines()[2:]]
    assert names == ["quernel", "PyTorch bf16", "PyTorch int4"], text
