"""Compiled code is kept where only its user writes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from quoin.fields import device

SOURCE = Path(__file__).parents[2] / "src"


def test_compiled_code_is_kept_in_the_users_own_folder(tmp_path):
    env = {name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
    env |= {"PYTHONPATH": str(SOURCE), "QUOIN_HOME": str(tmp_path)}
    code = "import quoin.fields.device as d, torch._inductor.runtime.cache_dir_utils as c; print(c.cache_dir())"
    done = subprocess.run([sys.executable, "-c", code], env=env, text=True, capture_output=True, check=True)
    assert done.stdout.strip() == str(tmp_path / "cache" / "inductor")


def test_its_folder_is_for_its_owner_only(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "home" / "inductor"))
    monkeypatch.setattr(device, "missing_compiler", lambda device: None)
    device.compile_function(lambda x: x, "cpu")
    assert (tmp_path / "home" / "inductor").stat().st_mode & 0o777 == 0o700
