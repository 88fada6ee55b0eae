"""The programs of docs/python.md, as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from conftest import ROOT


def test_product(tune: Callable[..., Path], models: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text()
    program = re.search(r"<!-- file: product.py -->\n```python\n(.*?)```", page, re.S)
    assert program
    folder = tune("tiny", models / "tiny-llama-gptq4").parent
    (folder / "tests").symlink_to(ROOT / "tests")
    done = subprocess.run([sys.executable, "-c", program[1]], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("int4.g128:768x256:bf16-f32 EXACT host."), done.stdout
    assert done.stdout.endswith("(2, 768)\n"), done.stdout
