"""Prefect or not: chosen by what is asked for and by whether a server answers."""

from __future__ import annotations

import http.server
import threading

import pytest

from quoin.flows.engine import should_use_prefect
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter


@pytest.fixture
def server():
    """The API address of something that answers as a Prefect server does."""

    class Health(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, *_):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
        thread.join()


@pytest.fixture
def warnings():
    return []


@pytest.fixture
def report(warnings):
    return Reporter(lambda event: warnings.append(event["message"]))


def test_auto_takes_prefect_where_its_server_answers(server, report, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", server)
    assert should_use_prefect("auto", report)
    assert should_use_prefect("prefect", report)
    assert not should_use_prefect("direct", report)


def test_auto_goes_on_without_a_server(report, warnings, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    assert not should_use_prefect("auto", report)
    assert warnings == []


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/api", "nonsense", "file:///etc/passwd", "http://[::1"])
def test_auto_says_that_the_server_named_does_not_answer(address, report, warnings, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", address)
    assert not should_use_prefect("auto", report)
    assert address in warnings[0]


def test_demanding_prefect_without_a_server_is_refused(report, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with pytest.raises(QuoinError, match="No Prefect server responds"):
        should_use_prefect("prefect", report)


def test_deployments_find_the_flow_beside_the_composition():
    from prefect.flows import load_flow_from_entrypoint

    found = load_flow_from_entrypoint("quoin.flows.prefect.flow.reconstruct_flow")
    assert found.name == "reconstruct"
    schema = found.parameters
    assert schema.required == ["photos", "out"]
    assert schema.properties["device"]["enum"] == ["auto", "cpu", "cuda"], "a form can be drawn from it"
