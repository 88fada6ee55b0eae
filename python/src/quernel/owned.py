"""What the library made and Python must free once."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from types import TracebackType
from typing import Any, NoReturn, TypeVar

from .errors import Error

_Self = TypeVar("_Self", bound="Owned")
_forks = 0


def _count_fork() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_count_fork)


def _free(forks: int, lock: threading.RLock, free: Callable[[Any], None], pointer: Any, *keep: object) -> None:
    if forks == _forks:  # the threads of a context are not there in a child of fork()
        with lock:
            free(pointer)


class Owned:
    """Something of the library, freed by close(), by leaving a `with`, or when nobody refers to it any more.

    What it was made of (`keep`) stays until then.
    """

    def __init__(self, pointer: Any, free: Callable[[Any], None], lock: threading.RLock, *keep: object) -> None:
        self._pointer, self._forks = pointer, _forks
        self._finalizer = weakref.finalize(self, _free, _forks, lock, free, pointer, *keep)

    @property
    def pointer(self) -> Any:
        """The pointer for the C interface. Raises Error if it was closed, or belongs to the parent of this process."""
        if not self._finalizer.alive:
            raise Error(f"this {type(self).__name__} is closed")
        if self._forks != _forks:
            raise Error(f"this {type(self).__name__} was made before fork(): make one in the child")
        return self._pointer

    def close(self) -> None:
        """Free it now. Calls that use it must have returned. Closing again does nothing."""
        self._finalizer()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} belongs to its process: save what it was made of, the checkpoint and the pack, "
            "and make it anew (quernel.torch.load)"
        )

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
