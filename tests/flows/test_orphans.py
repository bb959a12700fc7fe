"""A flow run whose worker has died: it goes on, and cancelling still stops it."""

from __future__ import annotations

import logging
import signal
import time
from contextlib import contextmanager
from types import SimpleNamespace
from uuid import uuid4

import pytest

from quoin.flows.prefect import flow


class Unread:
    """A pipe whose other end is closed."""

    def write(self, text):
        raise BrokenPipeError

    def flush(self):
        raise BrokenPipeError


@pytest.fixture
def console():
    from prefect.logging.handlers import PrefectConsoleHandler

    logger, handler = logging.getLogger("prefect.of-an-orphan"), PrefectConsoleHandler(stream=Unread())
    logger.addHandler(handler)
    logger.propagate = False
    yield logger
    logger.removeHandler(handler)


def test_a_console_that_nobody_reads_does_not_end_the_run(console):
    flow.ignore_broken_pipe()
    console.warning("half of it is done")
    console.warning("all of it is done")


@pytest.fixture
def sent(monkeypatch):
    """Signals that a run sent itself, while it is being cancelled all the time."""
    signals = []

    @contextmanager
    def client(sync_client):
        state = SimpleNamespace(is_cancelling=lambda: True)
        yield SimpleNamespace(read_flow_run=lambda _: SimpleNamespace(state=state))

    monkeypatch.setattr(flow, "CANCEL_POLL_SECONDS", 0.01)
    monkeypatch.setattr(flow, "get_client", client)
    monkeypatch.setattr(flow.os, "kill", lambda _, number: signals.append(number))
    return signals


def test_a_cancelled_run_stops_itself_once_when_no_worker_did(sent):
    with flow.watch_cancellation(uuid4(), timeout_s=0.05) as without_worker:
        assert without_worker.wait(30.0)
        time.sleep(0.05)
    assert sent == [signal.SIGTERM]


def test_a_worker_has_time_to_stop_it(sent):
    with flow.watch_cancellation(uuid4(), timeout_s=60.0) as without_worker:
        time.sleep(0.1)
    assert not without_worker.is_set()
    assert sent == []
