"""``quoin ui`` on a PostgreSQL database instead of its own SQLite file."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.flows.conftest import ask, serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture
def database():
    """(folder of PostgreSQL's programs, port) of an empty server; its user is prefect."""
    wanted = ("initdb", "postgres", "pg_isready", "psql")
    folders = [Path(shutil.which("initdb") or "").parent, *sorted(Path("/usr/lib/postgresql").glob("*/bin"))]
    programs = next((folder for folder in folders if all((folder / name).exists() for name in wanted)), None)
    if programs is None:
        pytest.skip("no PostgreSQL server is installed")
    with socket.socket() as free, tempfile.TemporaryDirectory() as home:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        other = {}
        if os.getuid() == 0:  # it refuses to run as root
            shutil.chown(home, "postgres")
            other = {"user": "postgres"}
        data = f"{home}/data"
        make = [programs / "initdb", "-D", data, "-A", "trust", "-U", "prefect", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd=home, **other)
        serve = [programs / "postgres", "-D", data, "-p", str(port), "-k", home, "-c", "listen_addresses=127.0.0.1"]
        process = subprocess.Popen(
            [*serve, "-c", "fsync=off"], cwd=home, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **other
        )
        ready = [programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)]
        deadline = time.monotonic() + 60
        try:
            while subprocess.run(ready, capture_output=True).returncode:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            yield programs, port
        finally:
            process.terminate()
            process.wait(timeout=60)


def test_runs_are_kept_in_the_database(database, quoin, reconstruct, tmp_path):
    programs, port = database
    url = f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    with serving(tmp_path, PREFECT_API_DATABASE_CONNECTION_URL=url) as (_, api):
        assert reconstruct("-q", PREFECT_API_URL=api).returncode == 0
        (run,) = ask(api, "flow_runs")
        assert run["state"]["type"] == "COMPLETED"
    count = [programs / "psql", "-h", "127.0.0.1", "-p", str(port), "-U", "prefect", "-d", "postgres", "-t", "-A"]
    query = "select count(*) from task_run where state_type = 'COMPLETED'"
    told = subprocess.run([*count, "-c", query], text=True, capture_output=True, check=True)
    assert told.stdout.strip() == "7"
    assert not list((tmp_path / "home").rglob("*.db"))
