"""A run as a job of a Ray cluster: it runs there, and what does not fit is refused in a sentence."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from quoin.cluster import jobs
from quoin.cluster.jobs import dashboard_url, submit_job
from quoin.pipeline.core.errors import QuoinError

quiet = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


def test_addresses() -> None:
    assert dashboard_url("http://head:8265") == "http://head:8265"
    assert dashboard_url("https://head") == "https://head:8265"
    assert dashboard_url("ray://head:10001") == "http://head:8265"
    for wrong in ("head:6379", "ftp://head", "http://", "http://head:port"):
        with pytest.raises(QuoinError, match="http://host:8265"):
            dashboard_url(wrong)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@quiet
def test_where_nothing_answers() -> None:
    with pytest.raises(QuoinError, match=r"No Ray cluster takes jobs at this address.*dashboard"):
        submit_job(f"http://127.0.0.1:{free_port()}", ["true"])


@quiet
def test_another_version_of_ray_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.job_submission

    class Client:
        def __init__(self, url: str) -> None:
            self._server_ray_version = "1.0.0"

    monkeypatch.setattr(jobs, "check_reachable", lambda address: None)
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", Client)
    with pytest.raises(QuoinError, match=r"The cluster has Ray 1.0.0, this machine has Ray"):
        submit_job("http://127.0.0.1:1", ["true"])


@quiet
@pytest.mark.parametrize("mode", ["", "token"])
def test_a_token_that_is_missing_or_wrong_is_a_sentence(mode: str, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    import ray.job_submission
    from ray.exceptions import AuthenticationError

    def refuse(url: str) -> None:
        raise AuthenticationError("Authentication failed")

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setattr(jobs, "check_reachable", lambda address: None)
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", refuse)
    with pytest.raises(QuoinError, match="refuses the token" if mode else "requires a token"):
        submit_job("http://127.0.0.1:1", ["true"])


@quiet
def test_a_head_that_takes_no_job_is_told_with_what_to_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray.job_submission

    class Client:
        def __init__(self, url: str) -> None: ...

        def submit_job(self, **job: object) -> str:
            raise RuntimeError("Request failed with status code 500: No available agent to submit job")

    monkeypatch.setattr(jobs, "check_reachable", lambda address: None)
    monkeypatch.setattr(jobs, "SUBMIT_TIMEOUT_SECONDS", 0.0)
    monkeypatch.setattr(ray.job_submission, "JobSubmissionClient", Client)
    with pytest.raises(QuoinError, match="dashboard-agent-listen-port"):
        submit_job("http://127.0.0.1:1", ["true"])


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The dashboard of a Ray head on loopback."""
    ray, port = Path(sys.executable).with_name("ray"), free_port()
    if not ray.exists():
        pytest.skip("no ray command beside this Python")
    folder = tmp_path_factory.mktemp("ray", numbered=False)
    env = os.environ | {"RAY_AUTH_MODE": "disabled", "RAY_TMPDIR": str(folder)}
    words = [ray, "start", "--head", "--block", "--num-cpus=1", "--num-gpus=0", f"--port={free_port()}"]
    words += ["--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"]
    words += ["--object-store-memory=80000000", f"--ray-client-server-port={free_port()}", f"--temp-dir={folder}"]
    with open(folder / "out.txt", "w") as out, subprocess.Popen(words, env=env, stdout=out, stderr=out) as process:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.5)
        assert process.poll() is None, (folder / "out.txt").read_text()
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@quiet
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_command_runs_on_the_cluster_with_its_words_as_they_are(head: str, tmp_path: Path) -> None:
    from ray.job_submission import JobSubmissionClient

    script = "import os, sys; open(sys.argv[1], 'w').write(sys.argv[2] + os.environ['WHO'])"
    words = [sys.executable, "-c", script, str(tmp_path / "out put"), "it's $HOME; "]
    job = submit_job(head, words, job_id="quoin-test", env={"WHO": "me"})
    assert job == "quoin-test"
    client, deadline = JobSubmissionClient(head), time.monotonic() + 300
    while not client.get_job_status(job).is_terminal() and time.monotonic() < deadline:
        time.sleep(0.5)
    assert client.get_job_status(job) == "SUCCEEDED", client.get_job_info(job).message
    assert (tmp_path / "out put").read_text() == "it's $HOME; me"
    with pytest.raises(QuoinError, match="Ray refuses the job"):
        submit_job(head, words, job_id="quoin-test")
