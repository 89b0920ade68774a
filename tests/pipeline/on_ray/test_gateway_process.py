"""What the batch hears of its gateway; here the gateway's words are the test's own, and Ray need not be installed."""

import threading
import time
from collections.abc import Iterator
from multiprocessing import Pipe
from multiprocessing.connection import Connection

import pytest

from pipeline.executor import Pulse
from pipeline.on_ray.gateway_process import GatewayProcess
from pipeline.on_ray.messages import Done, Options, Run


@pytest.fixture
def gateway(tmp_path, monkeypatch) -> Iterator[tuple[GatewayProcess, Connection]]:
    """A gateway process, and the other end of the connection to it, which is ours."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    process = GatewayProcess(Options(None, 1, 60.0, None))
    # What really runs there has nothing to say without Ray, and would begin a cluster with it.
    process.kill()
    process._connection.close()
    ours, its = Pipe()
    process._connection = ours
    yield process, its
    its.close()
    process.close()


def test_every_pulse_is_handed_on_though_they_come_without_a_gap(gateway):
    # Where many exports run, each at its own pace, a stop is heard at a pulse or not at all.
    process, its = gateway
    pulses = [Pulse({"m": number}) for number in range(50)]

    def talk() -> None:
        its.recv()
        for pulse in pulses:
            its.send(pulse)
            time.sleep(0.01)
        its.send(Done())

    talker = threading.Thread(target=talk)
    talker.start()
    heard = list(process.run(Run([], alone=False)))
    talker.join()
    assert [pulse for pulse in heard if pulse.rss_bytes] == pulses


def test_a_pulse_comes_again_where_the_gateway_has_nothing_new(gateway):
    process, its = gateway
    its.send(Pulse({"m": 5}))
    events = process.run(Run([], alone=False))
    assert [next(events) for _ in range(3)] == [Pulse({"m": 5})] * 3
