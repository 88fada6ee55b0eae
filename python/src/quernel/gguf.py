"""How llama.cpp names the layers of a Hugging Face model, and in which order it has their rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from .checkpoint import Checkpoint
from .errors import ArgumentError

# Whether llama.cpp's converter reorders the rows of q and k for its rotary embedding.
# Source: llama.cpp, conversion/, `permute` in modify_tensors of each architecture.
_REORDERED = {
    "llama": True,
    "granite": True,
    "qwen2": False,
    "qwen3": False,
    "olmo2": False,
    "gemma2": False,
    "gemma3": False,
    "phi3": False,
}


class Names:
    """Names of weights in a checkpoint, and the order of their rows; of anything but a GGUF both are as they are.

    Needs the package `gguf` for a GGUF. Raises ArgumentError for an architecture that is not known here.
    """

    def __init__(self, source: Checkpoint, layers: int) -> None:
        self.source = source
        self.architecture = source.text("general.architecture") if source.config is None else None
        self.gguf = self.architecture is not None
        self._map: Any = None
        if self.architecture is None:
            return
        if self.architecture not in _REORDERED:
            known = ", ".join(_REORDERED)
            raise ArgumentError(f"{source.path}: general.architecture is {self.architecture}; known are {known}")
        try:
            import gguf
        except ImportError as e:
            raise ImportError("names of a GGUF need the package gguf: pip install gguf") from e
        kinds = {name: kind for kind, name in gguf.MODEL_ARCH_NAMES.items()}
        self._map = gguf.get_tensor_name_map(kinds[self.architecture], layers)

    def of(self, name: str) -> str:
        """The checkpoint's name of a layer of the model, or the name itself if it has none."""
        return name if self._map is None else self._map.get_name(name) or name

    def order(self, name: str, n: int) -> np.ndarray[Any, Any] | None:
        """Row i of the model's weight is row order[i] of the checkpoint's; None: the same order."""
        if self.architecture is None or not _REORDERED[self.architecture]:
            return None
        last = name.rpartition(".")[2]
        key = {"q_proj": "attention.head_count", "k_proj": "attention.head_count_kv"}.get(last)
        if key is None:
            return None
        heads = self.source.number(f"{self.architecture}.{key}")
        if heads is None or n % (2 * int(heads)):
            raise ArgumentError(f"{self.source.path}: {self.architecture}.{key} is {heads}, and {name} has {n} rows")
        # The halves of a head lie interleaved in the file.
        return np.arange(n).reshape(int(heads), -1, 2).swapaxes(1, 2).reshape(n)
