"""Runs are found, told how far they are, and cleaned only where they are done."""

from __future__ import annotations

import pytest

from quoin.flows.cli.runs import find_runs, print_runs, summarize_run
from quoin.flows.pipeline import STAGES
from quoin.pipeline.core.errors import QuoinError
from tests.fixtures.synthetic import make_run


def test_runs_are_listed_and_cleaned_where_they_are_done(tmp_path, capsys):
    done = make_run(tmp_path / "castle", *(stage.name for stage in STAGES))
    begun = make_run(tmp_path / "deeper" / "tower", "ingest")
    for run in (done, begun):
        for name in ("pose", "blocks"):
            (run.path / "work" / name).mkdir(parents=True)
            (run.path / "work" / name / "file").write_bytes(bytes(1000))
    assert list(find_runs(tmp_path)) == [done.path, begun.path]
    assert summarize_run(done.path).state == "done"
    assert summarize_run(begun.path).state == "next: pose"
    assert summarize_run(done.path).n_scratch_bytes == 1000
    print_runs(tmp_path, clean=True)
    assert "next: pose" in capsys.readouterr().out
    assert not (done.path / "work" / "pose").exists()
    assert (done.path / "work" / "blocks" / "file").exists()
    assert (begun.path / "work" / "pose" / "file").exists()


def test_a_damaged_run_is_in_the_list(tmp_path):
    run = make_run(tmp_path / "castle")
    (run.path / "run.json").write_text("{")
    assert "run.json is damaged" in summarize_run(run.path).state


def test_a_folder_without_runs_is_told(tmp_path):
    with pytest.raises(QuoinError, match="There are no runs here"):
        print_runs(tmp_path, clean=False)
