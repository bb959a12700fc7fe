"""Asked to stop by a signal: first the work saves itself, then the signal does what it always did."""

import signal
import threading

import pytest

from quoin.pipeline.core import cancellation


class Terminated(KeyboardInterrupt):
    pass


@pytest.fixture(autouse=True)
def on_sigterm():
    def handler(number, frame):
        raise Terminated

    before = signal.signal(signal.SIGTERM, handler)
    yield
    signal.signal(signal.SIGTERM, before)
    cancellation.clear()


def test_work_goes_on_to_where_it_looks_then_the_signal_is_felt():
    saved = []

    @cancellation.request_on_signals()
    def work():
        signal.raise_signal(signal.SIGTERM)
        saved.append("the step that was under way")
        cancellation.check()
        saved.append("never")

    with pytest.raises(Terminated):
        work()
    assert saved == ["the step that was under way"]
    assert not cancellation.requested()


def test_the_second_signal_does_not_wait():
    @cancellation.request_on_signals()
    def work():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        pytest.fail("felt at once")

    with pytest.raises(Terminated):
        work()


def test_ctrl_c_is_heard_too_and_handlers_are_given_back():
    before = signal.getsignal(signal.SIGINT)

    @cancellation.request_on_signals()
    def work():
        signal.raise_signal(signal.SIGINT)
        assert cancellation.requested()

    with pytest.raises(KeyboardInterrupt):
        work()
    assert signal.getsignal(signal.SIGINT) is before
    with cancellation.request_on_signals():
        pass
    assert not cancellation.requested()


def test_elsewhere_than_in_the_main_thread_nothing_changes():
    handlers = []

    def work():
        with cancellation.request_on_signals():
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [before]
