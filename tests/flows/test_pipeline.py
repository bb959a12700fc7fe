"""What runs after what: order, skipping, redoing, stopping, going on."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest

from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

ALL = ["ingest", "pose", "partition", "priors", "train/b1", "train/b0", "fuse", "report"]  # the costlier block first
ARGUMENTS = ("reconstruct", "photos", "--out", "run")


def test_committed_stages_are_kept_and_a_change_redoes_only_what_stands_on_it(quoin, reconstruct):
    assert reconstruct().returncode == 0
    assert quoin.began() == ALL
    assert reconstruct().returncode == 0
    assert quoin.began() == []
    assert reconstruct("--set", "partition.max_photos=101").returncode == 0
    assert quoin.began() == [stage for stage in ALL[2:] if stage != "priors"], "priors do not stand on the partition"
    assert quoin.manifests()["partition"]["result"] == {"value": 101}
    assert quoin("resume", "run", "--force", "train").returncode == 0
    assert quoin.began() == ALL[4:]
    assert quoin.manifests()["partition"]["result"] == {"value": 101}, "resume keeps the run's settings"


@pytest.mark.slow
def test_what_is_kept_keeps_what_it_left_in_the_store(quoin, reconstruct):
    assert reconstruct(FAKE_PACE="0.1").returncode == 0
    run = Run.open(quoin.run)
    arrays.write_array(run.scene, "priors/000000/depth", np.ones(2))
    quoin.began()
    assert quoin("resume", "run", "--force", "partition").returncode == 0
    assert "priors" not in quoin.began()
    assert "priors/000000/depth" in run.scene
    assert quoin("resume", "run", "--force", "priors").returncode == 0
    assert "priors/000000/depth" not in run.scene


@pytest.mark.slow
def test_another_seed_redoes_everything(quoin, reconstruct):
    reconstruct()
    quoin.began()
    assert reconstruct("--seed", "7").returncode == 0
    assert quoin.began() == ALL


def test_killed_in_every_stage_in_turn_a_run_goes_on_and_redoes_nothing_committed(quoin):
    arguments = ARGUMENTS
    for position, stage in enumerate(ALL):
        process = quoin.start_and_wait_in(stage, *arguments)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        assert quoin.began() == ALL[max(0, position - 1) : position + 1]
        arguments = ("resume", "run")
    assert quoin(*arguments).returncode == 0
    assert quoin.began() == ["report"]
    assert set(quoin.manifests()) == {*ALL, "train"}


def test_one_process_at_a_time_and_ctrl_c_leaves_a_run_to_go_on_with(quoin):
    process = quoin.start_and_wait_in("train/b1", *ARGUMENTS)
    second = quoin(*ARGUMENTS)
    assert second.returncode == 2
    assert f"process {process.pid}" in second.stderr
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"continue with: quoin resume {quoin.run}" in err
    assert "Traceback" not in err
    assert quoin("resume", "run").returncode == 0, "the lock goes with the process"


def test_sigterm_stops_like_ctrl_c(quoin):
    process = quoin.start_and_wait_in("pose", *ARGUMENTS)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert "quoin resume" in err


def test_a_refusal_is_one_sentence_and_a_mistake_of_ours_leaves_its_traceback_in_the_run(quoin, reconstruct):
    refused = reconstruct("-q", FAKE_FAIL="pose")
    assert refused.returncode == 2
    assert refused.stderr == "Nothing fits ('pose'). Take more photos.\n"
    assert (quoin.run / "report.html").read_text() == "known: ['ingest']", "what is known is reported"
    broken = quoin("resume", "run", "-q", FAKE_BREAK="fuse", PYTHONWARNINGS="ignore")
    assert broken.returncode == 1
    assert "Traceback" not in broken.stderr
    (crash,) = (quoin.run / "logs").glob("crash-*.txt")
    assert str(crash) in broken.stderr
    assert "a mistake of ours" in crash.read_text()


def test_a_full_disk_is_a_sentence_and_the_run_goes_on_when_there_is_room(quoin, reconstruct):
    full = reconstruct("-q", FAKE_FULL="fuse")
    assert full.returncode == 2
    assert full.stderr == "The disk is full ('somewhere'). Free some space, then run quoin resume.\n"
    quoin.began()
    assert quoin("resume", "run").returncode == 0
    assert quoin.began() == ["fuse", "report"]


def test_a_block_that_fails_does_not_stop_the_run_and_resume_redoes_it_and_what_follows(quoin, reconstruct):
    partial = reconstruct("-q", "--set", "partition.min_blocks=3", FAKE_BREAK="train/b1")
    assert partial.returncode == 3
    assert "1 of 3 blocks could not be trained, the mesh has a hole in their place" in partial.stderr
    assert "b1: ZeroDivisionError" in partial.stderr
    assert "ZeroDivisionError" in (quoin.run / "work" / "blocks" / "b1" / "error.txt").read_text()
    assert quoin.began()[-2:] == ["fuse", "report"], "of the blocks that are there"
    assert quoin.manifests()["train"]["result"]["failed_blocks"] == {"b1": "ZeroDivisionError: a mistake of ours"}
    assert quoin("resume", "run", FAKE_BREAK="train/b1").returncode == 3, "and again where it fails again"
    assert quoin.began() == ["train/b1", "fuse", "report"]
    assert quoin("resume", "run").returncode == 0
    assert quoin.began() == ["train/b1", "fuse", "report"]
    assert quoin.manifests()["train"]["result"]["failed_blocks"] == {}


@pytest.mark.slow
def test_what_stood_on_a_changed_stage_is_forgotten_before_the_change_is_done(quoin, reconstruct):
    reconstruct()
    assert reconstruct("--set", "pose.min_points=16", FAKE_FAIL="pose").returncode == 2
    assert set(quoin.manifests()) == {"ingest"}


def test_json_lines_are_all_that_is_on_standard_output_and_all_events_are_kept(quoin, reconstruct):
    done = reconstruct("--json")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"start", "advance", "end", "log", "table"} <= {event["kind"] for event in events}
    assert [e["name"] for e in events if e["kind"] == "end" and e["name"] in ALL] == ALL
    assert done.stderr == ""
    kept = [json.loads(line) for line in (quoin.run / "logs" / "events.jsonl").read_text().splitlines()]
    assert kept == events


def test_without_a_terminal_plain_lines_and_where_the_results_lie(reconstruct):
    done = reconstruct()
    assert "train/b0: done after" in done.stderr
    assert "\x1b" not in done.stderr
    assert done.stdout.startswith("2 blocks trained, in ")


@pytest.mark.slow
def test_blocks_on_ray_workers(quoin, reconstruct):
    done = reconstruct("--executor", "ray", "--json")
    assert done.returncode == 0, done.stderr
    assert quoin.began() == ALL
    names = [json.loads(line)["name"] for line in done.stdout.splitlines()]
    assert names.count("train/b0") >= 3, "events come home from the workers"


@pytest.mark.slow
def test_sigterm_stops_ray_workers_too(quoin):
    process = quoin.start_and_wait_in("train/b1", *ARGUMENTS, "--executor", "ray")
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143, err
    assert "quoin resume" in err
    quoin.began()
    assert quoin("resume", "run").returncode == 0
    assert quoin.began() == ["train/b1", "train/b0", "fuse", "report"]
