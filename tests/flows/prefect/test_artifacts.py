"""What Prefect's UI is sent, and that a server which does not answer holds nothing up."""

from __future__ import annotations

import json
import threading
import time
from uuid import uuid4

import pytest

from quoin.flows.prefect.artifacts import ArtifactSink, artifact_key


class Server:
    """Remembers what it is sent; raises while it is ``away``."""

    def __init__(self):
        self.sent, self.logs, self.away, self.calls = [], [], False, 0

    def send(self, kind, key, data, description, update=None):
        self.calls += 1
        if self.away:
            raise ConnectionError("refused")
        self.sent.append((kind, key, data, "updated" if update else "made"))
        return update or uuid4()

    def log(self, *line):
        self.logs.append(line)


def event(kind, name="train/b0", time=0.0, **values):
    return {"kind": kind, "name": name, "time": time, **values}


def advance(done, time):
    return event("advance", time=time, done=done, total=10.0, unit="steps")


def test_progress_is_made_once_then_updated_every_few_seconds():
    server = Server()
    sink = ArtifactSink(server.send, server.log)
    sink(event("start", total=10.0, unit="steps"))
    for second in range(11):
        sink(advance(second, 100.0 + second))
    sink(event("end", seconds=10.0, failed=False))
    sink.close()
    assert {(kind, key) for kind, key, *_ in server.sent} == {("progress", "progress-train-b0")}
    assert [(data, how) for _, _, data, how in server.sent] == [
        (0.0, "made"),
        (0.0, "updated"),
        (50.0, "updated"),
        (100.0, "updated"),
        (100.0, "updated"),
    ]


def test_shares_of_one_work_have_one_progress_together():
    server = Server()
    sink = ArtifactSink(server.send, server.log)
    for k in range(1, 8):
        name = f"fuse/observe {k}/7"
        sink(event("start", name, 100.0 * k, total=10.0, unit="photos"))
        sink(event("advance", name, 100.0 * k + 50, done=5.0, total=10.0, unit="photos"))
        sink(event("end", name, 100.0 * k + 90, seconds=90.0, failed=False))
        sink(event("log", name, 100.0 * k + 91, message="done", level="warning"))
    sink.close()
    assert {(kind, key) for kind, key, *_ in server.sent} == {("progress", "progress-fuse-observe")}
    told = [data for _, _, data, _ in server.sent]
    assert told == sorted(told)
    assert told[0] == 0.0
    assert told[-1] == pytest.approx(100.0)
    assert max(told) <= 100.0, "Prefect refuses more"
    assert any(data == pytest.approx(50.0) for data in told), "half of the fourth share"
    assert [line[0] for line in server.logs] == [f"fuse/observe {k}/7" for k in range(1, 8)]


def test_work_that_failed_shows_how_far_it_came():
    server = Server()
    sink = ArtifactSink(server.send, server.log)
    sink(event("start", total=10.0, unit="steps"))
    sink(advance(1, 100.0))
    sink(advance(7, 101.0))
    sink(event("end", seconds=10.0, failed=True))
    sink.close()
    assert server.sent[-1][2] == 70.0


def test_tables_pictures_and_log_lines():
    server = Server()
    sink = ArtifactSink(server.send, server.log)
    sink(event("table", "blocks", rows=[{"block": "b0", "seconds": 1.5}]))
    sink(event("picture", "fuse", jpeg=b"\xff\xd8", caption="the <mesh>"))
    sink(event("picture", "fuse", jpeg=b"\xff\xd9", caption="later"))
    sink(event("log", "pose", message="slow", level="warning"))
    sink(event("metrics", step=1, values={"loss": 1.0}))
    sink.close()
    (table, picture, later) = server.sent
    assert table[:2] == ("table", "table-blocks")
    assert json.loads(table[2]) == [{"block": "b0", "seconds": 1.5}]
    assert picture[:2] == ("markdown", "picture-fuse")
    assert "the &lt;mesh&gt;" in picture[2]
    assert "(data:image/jpeg;base64,/9g=)" in picture[2]
    assert (picture[3], later[3]) == ("made", "updated")
    assert server.logs == [("pose", "slow", "warning")]


def test_a_block_has_a_line_every_ten_seconds_and_all_its_warnings():
    server = Server()
    sink = ArtifactSink(server.send, server.log)
    for second in range(25):
        sink(event("log", time=100.0 + second, message=f"{second}", level="warning" if second == 3 else "info"))
        sink(event("log", "pose", time=100.0 + second, message="said", level="info"))
    sink.close()
    assert [message for name, message, _ in server.logs if name == "train/b0"] == ["0", "3", "13", "23"]
    assert sum(name == "pose" for name, *_ in server.logs) == 25


def test_a_server_that_is_away_is_left_in_peace():
    server = Server()
    server.away = True
    sink = ArtifactSink(server.send, server.log)
    for _ in range(5000):  # more than the queue holds
        sink(event("table", "blocks", rows=[]))
    sink.close()
    assert server.calls == 1


def test_a_server_that_hangs_does_not_hold_up_the_work():
    stuck = threading.Event()
    sink = ArtifactSink(lambda *_, **__: stuck.wait(60), lambda *_: None)
    began = time.monotonic()
    for _ in range(5000):
        sink(event("table", "blocks", rows=[]))
    sink.close(timeout_seconds=0.1)
    assert not stuck.is_set()
    assert time.monotonic() - began < 30
    stuck.set()


@pytest.mark.parametrize(
    ("name", "key"), [("train/b0_1", "train-b0-1"), ("pose/mapping global", "pose-mapping-global"), ("Ä b", "b")]
)
def test_artifact_keys(name, key):
    assert artifact_key(name) == key
