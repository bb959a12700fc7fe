"""COLMAP: steps in a process of its own, its database, its cameras, its models as arrays.

Only files in here import pycolmap. Steps that can abort (features, matching, mapping, bundle adjustment) run in the
process of ``process.py``. Camera maths and reading a database cannot, and use ``load_pycolmap``.
"""

from __future__ import annotations

import ctypes
import functools
import signal
import threading
from types import ModuleType

# what glog's failure handler, which pycolmap installs when it is imported, takes over
_SIGNALS = ("SIGSEGV", "SIGILL", "SIGFPE", "SIGABRT", "SIGBUS", "SIGTERM")
_SIGACTION_BYTES = 512  # room for a struct sigaction, which has 152 bytes on Linux
_lock = threading.Lock()


def load_pycolmap() -> ModuleType:
    """The module pycolmap, imported without its signal handlers: with them a SIGTERM aborts with a stack trace,
    where quoin stops in good order.
    """
    with _lock:
        return _import_without_handlers()


@functools.cache
def _import_without_handlers() -> ModuleType:
    libc, numbers = ctypes.CDLL(None), [getattr(signal, name) for name in _SIGNALS]
    actions = [ctypes.create_string_buffer(_SIGACTION_BYTES) for _ in numbers]
    for number, action in zip(numbers, actions, strict=True):
        libc.sigaction(int(number), None, action)
    import pycolmap

    for number, action in zip(numbers, actions, strict=True):
        libc.sigaction(int(number), action, None)
    return pycolmap
