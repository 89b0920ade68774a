import os
import signal
import threading

import pytest

from exporter.errors import ExitCode
from pipeline.interruption import Interruption, Stopped

SIGNALS = [
    (signal.SIGINT, ExitCode.INTERRUPTED),
    (signal.SIGTERM, ExitCode.TERMINATED),
    (signal.SIGHUP, ExitCode.HUNG_UP),
]


def send(number):
    os.kill(os.getpid(), number)
    # Python runs the handler before the next line.


@pytest.mark.parametrize(("number", "code"), SIGNALS)
def test_the_first_signal_raises(number, code):
    before = signal.getsignal(number)
    with pytest.raises(Stopped) as caught, Interruption(list) as interruption:
        send(number)
    assert caught.value.code is interruption.code is code
    assert not isinstance(caught.value, Exception)
    assert signal.getsignal(number) is before


def test_while_deferred_a_signal_only_sets_the_code():
    with Interruption(list) as interruption, interruption.deferred():
        send(signal.SIGTERM)
        assert interruption.code is ExitCode.TERMINATED


def test_within_a_deferred_body_a_part_may_be_interrupted():
    with Interruption(list) as interruption, interruption.deferred():
        with pytest.raises(Stopped), interruption.heard():
            send(signal.SIGTERM)
        assert interruption.code is ExitCode.TERMINATED


def test_a_signal_that_came_before_is_heard_at_the_start_of_that_part():
    begun = []
    with Interruption(list) as interruption, interruption.deferred():
        send(signal.SIGHUP)
        with pytest.raises(Stopped) as caught, interruption.heard():
            begun.append(True)
    assert caught.value.code is ExitCode.HUNG_UP
    assert begun == []


def test_the_second_signal_hurries_and_the_first_one_keeps_its_code(monkeypatch):
    timers = []

    class Timer:
        def __init__(self, interval, function, arguments):
            timers.append((interval, function, arguments))

        def start(self):
            pass

    monkeypatch.setattr(threading, "Timer", Timer)
    hurried = []
    with Interruption(lambda: hurried.append(True)) as interruption, interruption.deferred():
        send(signal.SIGINT)
        assert (hurried, timers) == ([], [])
        send(signal.SIGTERM)
    assert hurried == [True]
    assert interruption.code is ExitCode.INTERRUPTED
    # If nothing else ends the process, this does.
    assert timers == [(2.0, os._exit, [130])]


def test_a_signal_that_was_ignored_still_is():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interruption(list) as interruption:
            send(signal.SIGHUP)
        assert interruption.code is None
    finally:
        signal.signal(signal.SIGHUP, before)


def test_another_thread_than_the_main_one_leaves_signals_alone():
    handlers = []

    def run():
        with Interruption(list):
            handlers.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert handlers == [before]
