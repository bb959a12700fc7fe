"""Exceptions of a command as one message on standard error and an exit status; tracebacks go into a file."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

from quoin.pipeline.core.errors import PartialResult, QuoinError
from quoin.pipeline.core.formatting import printable, redact_urls
from quoin.pipeline.storage.disk import UNWRITABLE_ERRNOS, disk_error

EXIT_TIMEOUT_SECONDS = 5.0
EXIT_CRASHED, EXIT_REFUSED, EXIT_PARTIAL, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM as an exception in the main thread, handled like Ctrl-C."""

    received = False  # some libraries re-raise it as a plain KeyboardInterrupt


@contextmanager
def exit_on_error(run_path: Path | None = None, run_location: str | None = None) -> Iterator[None]:
    """Turn an exception into a message and SystemExit.

    The message names the run at ``run_location``; the traceback of a crash goes into its working folder ``run_path``.
    """
    try:
        yield
    except QuoinError as error:
        print_error(str(error))
        raise SystemExit(EXIT_PARTIAL if isinstance(error, PartialResult) else EXIT_REFUSED) from None
    except KeyboardInterrupt:
        resume_hint = f"; continue with: {resume_command(run_location or run_path)}" if run_path else ""
        print(f"stopped{resume_hint}", file=sys.stderr)
        raise SystemExit(EXIT_TERMINATED if Terminated.received else EXIT_INTERRUPTED) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE_ERRNOS:
            print_error(str(disk_error(error, error.filename)))
            raise SystemExit(EXIT_REFUSED) from None
        from quoin.pipeline.core.workers import out_of_memory_error, out_of_memory_reason  # imports numpy

        if reason := out_of_memory_reason(error):
            print_error(str(out_of_memory_error(reason, run_location)))
            raise SystemExit(EXIT_REFUSED) from None
        path = save_traceback(error, run_path)
        print_error(
            f"quoin crashed, which is a bug in quoin: {type(error).__name__}: {error}. The traceback is in {path}"
        )
        raise SystemExit(EXIT_CRASHED) from None


def resume_command(location: Path | str) -> str:
    """The command that resumes a run, to be pasted into a shell."""
    return printable(f"quoin resume {shlex.quote(str(location))}")


def print_error(sentence: str) -> None:
    """Print a message on standard error, red in a terminal."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}{printable(sentence)}{plain}", file=sys.stderr)


def save_traceback(error: BaseException, run_path: Path | None) -> Path:
    """Write the traceback into the run's logs, or else into the temporary folder; returns its path."""
    text = redact_urls("".join(traceback.format_exception(error)))
    path = run_path / "logs" / f"crash-{time.strftime('%Y%m%d-%H%M%S')}.txt" if run_path else None
    if path is not None:
        try:
            path.write_text(text, encoding="utf-8")
            return path
        except OSError:
            pass
    with tempfile.NamedTemporaryFile("w", prefix="quoin-crash-", suffix=".txt", delete=False) as handle:
        handle.write(text)
    return Path(handle.name)


def raise_terminated(_signal: int, _frame: FrameType | None) -> NoReturn:
    Terminated.received = True
    raise Terminated


def install_sigterm_handler() -> None:
    """Make SIGTERM raise Terminated in the main thread."""
    signal.signal(signal.SIGTERM, raise_terminated)


def exit_process(status: int) -> NoReturn:
    """Exit; Prefect's threads, which retry for minutes if the server is gone, get EXIT_TIMEOUT_SECONDS."""
    if "prefect" in sys.modules:
        sys.stdout.flush()
        deadline = threading.Timer(EXIT_TIMEOUT_SECONDS, os._exit, [status])
        deadline.daemon = True
        deadline.start()
    sys.exit(status)


def kill_process_group(seconds: float = EXIT_TIMEOUT_SECONDS) -> None:
    """Kill this process and its process group after ``seconds``, from a shell that outlives them.

    Only if this process leads its group, as runs started by a Prefect worker do.
    """
    if os.getpgrp() == os.getpid():
        subprocess.Popen(
            ["sh", "-c", f"sleep {seconds}; kill -KILL -{os.getpid()} 2>/dev/null"], start_new_session=True
        )
