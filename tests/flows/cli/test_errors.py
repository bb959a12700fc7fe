"""How a process ends that is told to."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from tests.flows.conftest import ROOT

LEADER = """
import signal, subprocess, time
from quoin.flows.cli.errors import kill_process_group
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen(["sleep", "600"])
kill_process_group(0.2)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_group_is_ended_with_the_children_that_go_on():
    leader = subprocess.Popen(
        [sys.executable, "-c", LEADER], cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    with leader:
        child = int(leader.stdout.readline())
        assert leader.wait(timeout=60) == -9
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child goes on")


def test_who_leads_no_group_is_left_alone():
    code = "from quoin.flows.cli.errors import kill_process_group; import time; kill_process_group(0.0); time.sleep(1)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 0
