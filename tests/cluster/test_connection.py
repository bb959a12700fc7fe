"""The address of a cluster is looked at before any work is done: each way to be wrong is a sentence within seconds."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from quoin.cluster.connection import CLUSTER_ID_METHOD, check_address
from quoin.flows.cli.options import RunOptions
from quoin.pipeline.core.errors import QuoinError

grpc = pytest.importorskip("grpc")
TOKEN = "f" * 64


@pytest.fixture
def locked() -> Iterator[str]:
    """The address of what answers as the head of a Ray cluster does, where the token is right."""

    def greet(_: bytes, context: grpc.ServicerContext) -> bytes:
        if dict(context.invocation_metadata()).get("authorization") != f"Bearer {TOKEN}":
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""

    service, method = CLUSTER_ID_METHOD.strip("/").split("/")
    handlers = grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(greet)})
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads, handlers=[handlers])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    """A home without a token, and nothing of Ray in the environment or on the machine, also afterwards."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def headers(monkeypatch: pytest.MonkeyPatch, token: str | None) -> None:
    """What Ray would send; it reads a token once in a process."""
    from ray._private.authentication import http_token_authentication as module

    sent = {"authorization": f"Bearer {token}"} if token else {}
    monkeypatch.setattr(module, "get_auth_headers_if_auth_enabled", lambda user: sent)


def test_who_has_the_token_is_let_in_and_others_are_told(locked: str, monkeypatch: pytest.MonkeyPatch) -> None:
    headers(monkeypatch, TOKEN)
    check_address(locked)
    headers(monkeypatch, "another")
    with pytest.raises(QuoinError, match=r"refuses the token of this machine.*auth_token"):
        check_address(locked)
    headers(monkeypatch, None)
    with pytest.raises(QuoinError, match=r"requires a token, and this machine has none.*auth_token"):
        check_address(locked)


def test_what_is_no_ray_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    headers(monkeypatch, None)
    with socket.create_server(("127.0.0.1", 0)) as web:

        def answer() -> None:
            while True:
                try:
                    connection, _ = web.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(QuoinError, match="another program than Ray listens there"):
            check_address(f"127.0.0.1:{web.getsockname()[1]}")
        web.shutdown(socket.SHUT_RDWR)


def test_where_nothing_listens() -> None:
    with pytest.raises(QuoinError, match=r"cannot be reached.*refused"):
        check_address("127.0.0.1:1")


@pytest.mark.parametrize("address", ["", "head", "head:", "head:port", ":6379", "ray://head:10001", "http://head:8265"])
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(QuoinError, match="Invalid address of a Ray cluster"):
        check_address(address)


def test_a_command_looks_before_it_begins() -> None:
    with pytest.raises(QuoinError, match="No Ray cluster was started"):
        RunOptions(executor="ray", address="auto").check()
    with pytest.raises(QuoinError, match="cannot be reached"):
        RunOptions(executor="ray", address="127.0.0.1:1").check()
    with pytest.raises(QuoinError, match="Add --executor ray"):
        RunOptions(address="127.0.0.1:1").check()


def test_auto_is_the_ray_that_this_user_started_last(
    locked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    headers(monkeypatch, TOKEN)
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text(locked)
    assert check_address("auto") == check_address(locked) == locked
    note.write_text("127.0.0.1:1")  # one that has ended
    with pytest.raises(QuoinError, match=r"Ray cannot be reached.*127\.0\.0\.1:1'"):
        check_address("auto")
    monkeypatch.setenv("RAY_ADDRESS", locked)  # in a Ray job
    assert check_address("auto") == locked


def test_auto_is_nobody_elses_ray(locked: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    note = tmp_path / "ray" / "ray_current_cluster"
    note.parent.mkdir()
    note.write_text(locked)
    monkeypatch.setattr(os, "getuid", lambda: note.stat().st_uid + 1)
    with pytest.raises(QuoinError, match="another user's"):
        check_address("auto")
