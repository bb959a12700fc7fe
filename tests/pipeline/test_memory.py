"""How much memory a process has had at most."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from quoin.pipeline.storage.run import peak_memory_bytes, reset_peak_memory

LARGE = 400 << 20


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can forget")
def test_what_is_forgotten_is_not_told() -> None:
    reset_peak_memory()
    before = peak_memory_bytes()
    held = np.ones(LARGE // 8)
    assert peak_memory_bytes() > before + 0.9 * LARGE
    assert held.sum() > 0
    del held
    reset_peak_memory()
    assert peak_memory_bytes() < before + 0.5 * LARGE
