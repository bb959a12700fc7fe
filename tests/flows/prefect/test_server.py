"""What ``quoin ui`` starts, and what a run shows of its poses."""

from __future__ import annotations

import asyncio
import http.server
import io
import json
import math
import re
import socket
import sys
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from starlette.responses import PlainTextResponse

from quoin.flows.prefect import server
from quoin.pipeline.core.errors import QuoinError
from tests.fixtures.synthetic import make_run


def test_the_server_keeps_to_itself(tmp_path):
    environment = server.server_environment(4321, tmp_path, "quoin:key")
    assert environment["PREFECT_SERVER_API_AUTH_STRING"] == environment["PREFECT_API_AUTH_STRING"] == "quoin:key"
    assert environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4321,http://localhost:4321"
    assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert environment["DO_NOT_TRACK"] == "1"
    assert environment["PREFECT_HOME"] == str(tmp_path)
    assert environment["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4321/api"
    assert server.LOOPBACK == "127.0.0.1"


def test_its_key_is_made_once_and_read_by_its_owner_only(tmp_path):
    path = tmp_path / "auth-string"
    key = server.read_auth_string(path)
    assert re.fullmatch(r"quoin:[\w-]{32}", key)
    assert server.read_auth_string(path) == key
    assert path.stat().st_mode & 0o777 == 0o600
    assert server.read_auth_string(tmp_path / "other") != key


@pytest.mark.parametrize(
    ("host", "status"),
    [("127.0.0.1:4200", 200), ("localhost", 200), ("server:4200", 200), ("evil.example:4200", 400), ("", 400)],
)
def test_a_request_that_names_another_host_is_refused(monkeypatch, host, status):
    served = []
    prefect_server = SimpleNamespace(create_app=lambda final: PlainTextResponse("ok"))
    monkeypatch.setitem(sys.modules, "prefect.server.api.server", prefect_server)  # importing it takes seconds
    monkeypatch.setattr("uvicorn.run", lambda app, **_: served.append(app))
    server.serve("127.0.0.1", 4200, [*server.LOOPBACK_NAMES, "server"])

    async def get() -> int:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=served[0]), base_url="http://any") as client:
            return (await client.get("/", headers={"Host": host})).status_code

    assert asyncio.run(get()) == status


@pytest.mark.parametrize(
    ("key", "says"), [(None, "is not set"), ("quoin:wrong", "is not the one"), ("quoin:right", None)]
)
def test_a_key_that_is_missing_or_wrong_is_a_sentence(monkeypatch, key, says):
    right = server.auth_header("quoin:right")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            is_allowed = self.path == "/api/health" or self.headers.get("Authorization") == right["Authorization"]
            self.send_response(200 if is_allowed else 401)
            self.end_headers()

        def log_message(self, *_):
            pass

    monkeypatch.delenv(server.AUTH_VARIABLE, raising=False)
    if key:
        monkeypatch.setenv(server.AUTH_VARIABLE, key)
    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as fake:
        threading.Thread(target=fake.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{fake.server_port}/api"
        with pytest.raises(QuoinError, match=f"asks for its auth string, and .* {says}") if says else nullcontext():
            server.check_prefect_server(url, "")
        fake.shutdown()


def test_a_port_that_is_taken_is_a_sentence(monkeypatch, tmp_path):
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path))
    with socket.create_server((server.LOOPBACK, 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(QuoinError, match="Cannot listen on this port: Address already in use"):
            server.run_server(port)
        monkeypatch.setattr(server, "is_responding", lambda url: True)
        with pytest.raises(QuoinError, match=r"A Prefect server already runs on this port.*export PREFECT_API_URL"):
            server.run_server(port)
    with pytest.raises(QuoinError, match="Invalid port"):
        server.run_server(99999)


LOST, NOT_BEGUN = "quoin calls lost runs crashed", "quoin calls runs crashed that do not begin"


@pytest.mark.parametrize(
    ("known", "made"), [([], [LOST, NOT_BEGUN]), ([LOST], [NOT_BEGUN]), ([LOST, "another", NOT_BEGUN], [])]
)
def test_automations_are_installed_once(monkeypatch, known, made):
    asked = []

    def urlopen(request, timeout):
        asked.append((request.full_url, json.loads(request.data)))
        there = [{"name": name} for name in known]
        return io.BytesIO(json.dumps(there if request.full_url.endswith("filter") else {}).encode())

    monkeypatch.setattr(server, "urlopen", urlopen)
    server.install_automations("http://127.0.0.1:1/api", "quoin:key")
    posted = [body for address, body in asked if address.endswith("/automations/")]
    assert [body["name"] for body in posted] == made
    assert all(body["actions"][0]["state"] == "CRASHED" for body in posted)


def test_photos_that_are_missing_or_placed_badly_come_first(tmp_path):
    from quoin.flows.prefect.flow import pose_rows

    run = make_run(tmp_path)
    row = {
        "registered": True,
        "n_points": 50,
        "reason": "",
        "detail": "",
        "photo_id": 0,
        "component": 0,
        "focal_px": 400.0,
    }
    photos = [
        {"name": "good.jpg", "reprojection_px": 0.4, **row},
        {"name": "bad.jpg", "reprojection_px": 1.9, **row},
        {
            "name": "lost.jpg",
            "registered": False,
            "n_points": 0,
            "detail": "7",
            "reprojection_px": math.nan,
            "reason": "few_features",
            "photo_id": 2,
            "component": -1,
            "focal_px": math.nan,
        },
    ]
    run.table("poses").parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(photos), run.table("poses"))
    rows = pose_rows(run)
    assert [row["photo"] for row in rows] == ["lost.jpg", "bad.jpg", "good.jpg"]
    assert (rows[0]["placed"], rows[1]["placed"], rows[1]["reprojection"]) == ("no: few features: 7", "yes", "1.90 px")
