"""What every test stands on: nothing calls home, listens beyond loopback, or writes outside temporary folders."""

from __future__ import annotations

import os
import signal
import tempfile

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
os.environ.pop("PREFECT_API_URL", None)  # never a developer's own server

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

import tests.typecheck  # noqa: E402, F401  the import hook looks it up by name

settings.register_profile("quoin", derandomize=True, database=None, deadline=None, max_examples=50)
settings.load_profile("quoin")


def pytest_sessionfinish(session: pytest.Session) -> None:
    del session
    _HOME.cleanup()
