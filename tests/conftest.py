"""What every test stands on: nothing calls home, listens beyond loopback, or writes outside temporary folders."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Set before any library reads it; quoin is imported by the tests only, after jaxtyping's import hook is in place.
_HOME = tempfile.TemporaryDirectory(prefix="quoin-tests-")
os.environ.update(
    {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        "DO_NOT_TRACK": "1",
        "QUOIN_HOME": os.path.join(_HOME.name, "home"),
        "PREFECT_HOME": os.path.join(_HOME.name, "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TORCHDYNAMO_DISABLE": os.environ.get("TORCHDYNAMO_DISABLE", "1"),  # compiling takes longer than the tests
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # Ray on loopback only
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", os.path.join(_HOME.name, "inductor")),
    }
)
for _name in ("PREFECT_API_URL", *(name for name in os.environ if name.startswith("AWS_"))):
    os.environ.pop(_name, None)  # never a developer's own server or storage

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

import tests.typecheck  # noqa: E402, F401  the import hook looks it up by name

settings.register_profile("quoin", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("quoin")


_buckets = itertools.count()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """The address of an S3 server on loopback, the same for all tests."""
    from tests.fixtures.s3_server import s3_server

    with s3_server() as address:
        yield address


@pytest.fixture
def bucket(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a new bucket that this process and those it starts may use, on a machine with a cache of its own."""
    from tests.fixtures.s3_server import environment, make_bucket

    for name, value in {**environment(s3), "QUOIN_HOME": str(tmp_path / "home")}.items():
        monkeypatch.setenv(name, value)
    return make_bucket(s3, f"test-{next(_buckets)}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    del session
    _HOME.cleanup()
