"""The command `quernel`: the tool that the wheel carries."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def main() -> None:
    """Become the tool."""
    tool = Path(__file__).parent / "bin" / "quernel"
    try:
        os.execv(tool, [str(tool), *sys.argv[1:]])
    except OSError as e:
        sys.exit(f"quernel: {tool}: {e.strerror}")


if __name__ == "__main__":
    main()
