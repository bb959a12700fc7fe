"""One step of COLMAP in a child process, so that an abort of the library becomes a QuoinError.

The child reads a job (JSON), writes its result (JSON), and logs to stderr, which the parent keeps in a file and reads
for progress. It dies with its parent: its stdin closes.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from io import TextIOBase
from pathlib import Path
from typing import Any

import quoin
from quoin.pipeline.core.errors import QuoinError

_LOG_PREFIX = re.compile(r"^[IWEF]\d{8} \S+ \d+ \S+\] ")  # glog: level and date, time, thread, file:line]

LogLineCallback = Callable[[str], None]


class SubprocessDiedError(QuoinError):
    """The process ended without a result: killed by a signal, out of memory, or an abort inside the library."""


def run_in_subprocess(
    step: str, job: dict[str, Any], folder: Path, on_log_line: LogLineCallback = lambda line: None
) -> dict[str, Any]:
    """Result of ``step`` on ``job``; its log is ``folder``/<step>.log, and every line of it is given to
    ``on_log_line``.

    Raises SubprocessDiedError where the process dies, QuoinError where the library reports a failure.
    """
    job_path, result_path, log_path = (
        folder / f"{step}.job.json",
        folder / f"{step}.result.json",
        folder / f"{step}.log",
    )
    job_path.write_text(json.dumps({"step": step, **job}), encoding="utf-8")
    result_path.unlink(missing_ok=True)
    above_quoin = str(Path(quoin.__file__).parents[1])
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join([above_quoin, *_inherited_path()]))
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "quoin.stages.pose.colmap.process", str(job_path), str(result_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        env=environment,
        start_new_session=True,  # Ctrl-C comes to us alone; we end the child
    )
    tail: deque[str] = deque(maxlen=1)
    try:
        with open(log_path, "w", encoding="utf-8") as log:
            _read_log(process.stderr, log, tail, on_log_line)  # type: ignore[arg-type]
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdin.close()  # type: ignore[union-attr]
        process.stderr.close()  # type: ignore[union-attr]
    last_line = tail[0] if tail else "nothing was logged"
    if code != 0 or not result_path.exists():
        cause = f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}"
        advice = (
            "free some memory, then run quoin resume" if code == -signal.SIGKILL else "see the log, then quoin resume"
        )
        raise SubprocessDiedError(
            f"COLMAP died in step {step!r} by {cause}; its last line was: {last_line}", where=log_path, hint=advice
        )
    result = json.loads(result_path.read_text(encoding="utf-8"))
    if "error" in result:
        raise QuoinError(f"COLMAP failed in step {step!r}: {result['error']}", where=log_path, hint="see the log")
    return result


def _inherited_path() -> list[str]:
    return [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]


def _read_log(stream: Iterable[str], log: TextIOBase, tail: deque[str], on_log_line: LogLineCallback) -> None:
    for line in stream:
        log.write(line)
        text = _LOG_PREFIX.sub("", line.strip())
        if text and not text.startswith("@ "):  # lines of a stack dump say nothing to a person
            tail.append(text)
            on_log_line(text)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)


def exit_with_parent() -> None:
    """In the child: end the process when the parent is gone, which is when stdin closes."""

    def watch() -> None:
        while os.read(0, 1):  # not sys.stdin, whose lock the interpreter wants back when it ends
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
