"""How a process ends that is told to."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time

import pytest

from quoin.flows.cli.errors import exit_on_error, resume_command
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


@pytest.mark.parametrize(
    "error",
    [MemoryError(), MemoryError("Unable to allocate 7 TiB"), OSError(errno.ENOMEM, "Cannot allocate memory")],
)
def test_running_out_of_memory_is_told_as_such(error: Exception, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended, exit_on_error():
        raise error
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "too little memory" in said
    assert "--memory" in said
    assert "bug" not in said


def test_the_command_to_resume_can_be_pasted():
    assert resume_command("runs/a b'c; rm -rf x") == """quoin resume 'runs/a b'"'"'c; rm -rf x'"""
    assert "\x1b" not in resume_command("runs/\x1b[2J")


def test_the_message_of_a_crash_neither_steers_the_terminal_nor_keeps_a_password(tmp_path, capsys):
    (tmp_path / "logs").mkdir()
    with pytest.raises(SystemExit), exit_on_error(tmp_path):
        raise ZeroDivisionError("\x1b[2J s3://KEY:SECRET@bucket")
    said = capsys.readouterr().err
    [log] = (tmp_path / "logs").iterdir()
    assert "\x1b" not in said
    assert "SECRET" not in said + log.read_text()
