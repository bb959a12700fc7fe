"""How a command ends when it does not end well: one sentence, an exit status, never a traceback on the screen."""

from __future__ import annotations

import os
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
from quoin.pipeline.storage.atomic import UNWRITABLE_ERRNOS, disk_error

EXIT_TIMEOUT_SECONDS = 5.0
EXIT_CRASHED, EXIT_REFUSED, EXIT_PARTIAL, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 3, 130, 143


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised where the work is, so that it ends as Ctrl-C does."""

    received = False  # some libraries pass it on as a bare KeyboardInterrupt


@contextmanager
def exit_on_error(run_path: Path | None = None, run_location: str | None = None) -> Iterator[None]:
    """Turn what is raised inside into a sentence and SystemExit; the run being worked on lies at ``run_location``.

    Tracebacks go into its working folder ``run_path``.
    """
    try:
        yield
    except QuoinError as error:
        print_error(str(error))
        raise SystemExit(EXIT_PARTIAL if isinstance(error, PartialResult) else EXIT_REFUSED) from None
    except KeyboardInterrupt:
        resume_hint = f"; go on with: quoin resume {run_location or run_path}" if run_path else ""
        print(f"stopped{resume_hint}", file=sys.stderr)
        raise SystemExit(EXIT_TERMINATED if Terminated.received else EXIT_INTERRUPTED) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in UNWRITABLE_ERRNOS:
            print_error(str(disk_error(error, error.filename)))
            raise SystemExit(EXIT_REFUSED) from None
        path = save_traceback(error, run_path)
        print_error(
            f"quoin broke, which is a mistake of ours: {type(error).__name__}: {error}. The details are in {path}"
        )
        raise SystemExit(EXIT_CRASHED) from None


def print_error(sentence: str) -> None:
    """One sentence on standard error, red in a terminal."""
    red, plain = ("\x1b[31m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    print(f"{red}{sentence}{plain}", file=sys.stderr)


def save_traceback(error: BaseException, run_path: Path | None) -> Path:
    """Write the traceback into the run's logs, or else into the temporary folder; returns where."""
    text = "".join(traceback.format_exception(error))
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
    """From here on SIGTERM raises Terminated in the main thread."""
    signal.signal(signal.SIGTERM, raise_terminated)


def exit_process(status: int) -> NoReturn:
    """Exit; Prefect's threads, which try for minutes to reach a server that is gone, get a few seconds."""
    if "prefect" in sys.modules:
        sys.stdout.flush()
        deadline = threading.Timer(EXIT_TIMEOUT_SECONDS, os._exit, [status])
        deadline.daemon = True
        deadline.start()
    sys.exit(status)


def kill_process_group(seconds: float = EXIT_TIMEOUT_SECONDS) -> None:
    """Have this process and those of its group killed then, compilers and all; by a shell, which outlives them.

    Only where this process leads its group, as runs that a Prefect worker has started do.
    """
    if os.getpgrp() == os.getpid():
        subprocess.Popen(
            ["sh", "-c", f"sleep {seconds}; kill -KILL -{os.getpid()} 2>/dev/null"], start_new_session=True
        )
