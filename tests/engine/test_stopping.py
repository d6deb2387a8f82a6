"""Signals as wishes, and everything as it was afterwards."""

import os
import signal
import threading

import pytest

from multiway.engine.stopping import REQUESTS, StopRequest


@pytest.mark.parametrize("number", REQUESTS)
def test_each_request_is_heard_and_handlers_are_put_back(number: signal.Signals) -> None:
    before = {each: signal.getsignal(each) for each in REQUESTS}
    with StopRequest() as stop:
        assert not stop.wanted
        os.kill(os.getpid(), number)
        assert stop.wanted
    assert {each: signal.getsignal(each) for each in REQUESTS} == before


def test_asked_twice_is_at_once_but_warnings_may_repeat() -> None:
    with StopRequest() as stop:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGUSR1)
        assert stop.wanted
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.getsignal(signal.SIGTERM)  # a call, at which the interpreter handles what has arrived


def test_outside_the_main_thread_nothing_changes() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def elsewhere() -> None:
        with StopRequest() as stop:
            seen.append((stop.wanted, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
