"""Connections to Ray: a cluster of this machine that is started and stopped, or the head of a running one."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from quoin.pipeline.core.errors import QuoinError, first_line

CONNECT_TIMEOUT_SECONDS = 5.0
HEAD_TIMEOUT_SECONDS = 20.0  # without a response of the head; Ray itself would end this process after a minute
SHUTDOWN_SECONDS = 10.0
CLUSTER_ID_METHOD = "/ray.rpc.NodeInfoGcsService/GetClusterId"  # the first call of every client of a cluster
OBJECT_STORE_BYTES = 200_000_000  # results are small; arrays travel through the run folder


@contextmanager
def connect_ray(address: str | None) -> Iterator[Any]:
    """Ray, connected. A local cluster listens on loopback only, sends no statistics, and is stopped at the end."""
    for name, value in ray_environment(address).items():
        os.environ.setdefault(name, value)
    import ray

    if ray.is_initialized():
        yield ray
        return
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        if address is None:
            ray.init("local", include_dashboard=False, object_store_memory=OBJECT_STORE_BYTES, **quiet)
        else:
            ray.init(check_address(address), **quiet)
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        raise unreachable_error(error, address) from error
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_sigterm)  # Ray has replaced our handler by its own
        yield ray
    finally:
        ending = threading.Thread(target=ray.shutdown, daemon=True)  # without a head it may never return
        ending.start()
        ending.join(SHUTDOWN_SECONDS)


def ray_environment(address: str | None) -> dict[str, str]:
    """Environment of Ray, which it reads partly at import, for variables that are not set."""
    values = {"RAY_USAGE_STATS_ENABLED": "0"}
    if address is None or address.startswith(("127.0.0.1:", "localhost:")):
        values["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # listen on loopback only
    if address is None:  # a secret of this process: Ray itself would write one to the home folder, readable for all
        return values | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    has_token = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    if has_token or (Path.home() / ".ray" / "auth_token").exists():
        values["RAY_AUTH_MODE"] = "token"  # ray start requires it by default, but Ray sends it only with this setting
    return values


def check_reachable(address: str, seconds: float = CONNECT_TIMEOUT_SECONDS) -> None:
    """Raise OSError or ValueError where nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    socket.create_connection((host, int(port)), timeout=seconds).close()


def find_own_cluster() -> str:
    """host:port that ``auto`` stands for: RAY_ADDRESS, which jobs have, else the last Ray that this user started here.

    QuoinError where there is none. Ray itself would take any on the machine: another user's, or that of another run.
    """
    from_environment = os.environ.get("RAY_ADDRESS", "")
    if from_environment not in ("", "auto", "local"):
        return from_environment
    from ray._private.utils import get_ray_address_file

    address_file = Path(get_ray_address_file(None))  # written by ray start on all machines of a cluster
    hint = "start one (ray start --head), or write host:port of the one to use instead of auto"
    try:
        owner, address = address_file.stat().st_uid, address_file.read_text().strip()
    except OSError:
        raise QuoinError("No Ray cluster was started on this machine", where="auto", hint=hint) from None
    if owner != os.getuid():
        raise QuoinError("The last Ray started on this machine is another user's", where=address, hint=hint)
    return address


def check_address(address: str) -> str:
    """The host:port to connect to; QuoinError where no cluster responds there, or where it refuses this process.

    ``auto`` is ``find_own_cluster``. Ray itself would try for twenty seconds to minutes, and log that every second.
    """
    for name, value in ray_environment(address).items():
        os.environ.setdefault(name, value)
    if address == "auto":
        address = find_own_cluster()
    host, _, port = address.rpartition(":")
    if not host or "/" in host or not port.isdigit():
        hint = "write host:6379 as ray start --head said, or auto on a machine of the cluster"
        raise QuoinError("Invalid address of a Ray cluster", where=address, hint=hint)
    try:
        check_reachable(address)
    except (OSError, OverflowError) as error:
        raise unreachable_error(error, address) from error
    try:
        import grpc
        from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
    except ImportError:  # another version of Ray, which reports its own error
        return address
    metadata = [(name.lower(), value) for name, value in get_auth_headers_if_auth_enabled({}).items()]
    try:
        with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
            channel.unary_unary(CLUSTER_ID_METHOD)(b"", timeout=CONNECT_TIMEOUT_SECONDS, metadata=metadata)
    except grpc.RpcError as error:
        if error.code() == grpc.StatusCode.UNAUTHENTICATED:
            raise authentication_error(address, had_token=bool(metadata)) from None
        if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
            raise unreachable_error(OSError("another program than Ray listens there"), address) from None
    return address


def unreachable_error(error: Exception, address: str | None) -> QuoinError:
    """The error where Ray cannot be reached or started."""
    hint = "see quoin doctor, or use --executor inline"
    return QuoinError(f"Ray cannot be reached or started: {first_line(error)}", where=address, hint=hint)


def authentication_error(address: str, *, had_token: bool) -> QuoinError:
    """The error where the cluster requires a token that this process does not have."""
    why = "refuses the token of this machine" if had_token else "requires a token, and this machine has none"
    hint = "copy ~/.ray/auth_token of its first machine to the same place here, or set RAY_AUTH_TOKEN"
    return QuoinError(f"The Ray cluster {why}", where=address, hint=hint)


class HeadMonitor:
    """Checks now and then that the head of the cluster is reachable."""

    def __init__(self, ray: Any) -> None:
        self.address = ray.get_runtime_context().gcs_address
        self._answered = time.monotonic()
        self._next = 0.0

    def check(self) -> None:
        """Raise QuoinError where the head has not been reachable for HEAD_TIMEOUT_SECONDS."""
        now = time.monotonic()
        if now < self._next:
            return
        self._next = now + CONNECT_TIMEOUT_SECONDS
        try:
            check_reachable(self.address, seconds=1.0)
            self._answered = time.monotonic()
        except OSError:
            if time.monotonic() - self._answered > HEAD_TIMEOUT_SECONDS:
                hint = "start the cluster again, then quoin resume; blocks resume from their checkpoints"
                raise QuoinError("The head of the Ray cluster is gone", where=self.address, hint=hint) from None
