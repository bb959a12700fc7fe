"""The command line: what it refuses, and that it starts light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from quoin.flows.cli.app import run_command
from tests.fixtures.synthetic import make_run

HEAVY = {"torch", "ray", "prefect", "open3d", "pycolmap", "zarr", "numpy", "pydantic", "pyarrow", "PIL"}


def test_nothing_heavy_is_imported_before_a_command_runs():
    code = "import sys; from quoin.flows.cli import app; app.run_command(['--help']); print('modules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split("modules ")[-1].split())
    assert "quoin.flows.cli.app" in modules
    assert not modules & HEAVY


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["reconstuct", "photos"], 'Did you mean "reconstruct"'),
        (["reconstruct"], "requires an argument"),
        (["reconstruct", "photos", "--devise", "cpu"], "Did you mean --device"),
        (["reconstruct", "photos", "--device", "cpi"], 'Did you mean "cpu"'),
        (["reconstruct", "absent"], "There are no photos here ('absent')"),
        (["reconstruct", "photos", "--preset", "defolt"], "Unknown preset ('defolt'). Did you mean 'default'?"),
        (["reconstruct", "photos", "--preset", "absent.yaml"], "Cannot read configuration"),
        (["reconstruct", "photos", "--set", "trian.steps=3"], "('trian'). Did you mean 'train'?"),
        (["reconstruct", "photos", "--set", "train.step=3"], "('train.step'). Did you mean 'steps'?"),
        (["reconstruct", "photos", "--set", "train.steps=many"], "'many' does not fit"),
        (["reconstruct", "photos", "--set", "train.steps"], "--set wants section.key=value"),
        (["reconstruct", "photos", "--force", "poze"], "Unknown stage ('poze'). Did you mean 'pose'?"),
        (["reconstruct", "photos", "--masks", "absent"], "File or folder not found ('absent')"),
        (["resume", "photos"], "There is no quoin run here"),
        (["resume", "absent"], "There is no quoin run here"),
        (["plan", "absent"], "There are no photos here"),
        (["reconstruct", "n" * 5000], "There are no photos here"),
        (["reconstruct", "photos", "--out", "o" * 300], "Cannot write: File name too long"),
    ],
)
def test_a_mistyped_command_gets_one_sentence_and_makes_nothing(arguments, sentence, tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run_command(arguments) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["photos"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where photos/ lies, and run/ holds a run of them with ingest committed."""
    make_run(tmp_path, "ingest")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def told(capsys, *arguments):
    """The one sentence of a command that is refused."""
    assert run_command(list(arguments)) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    return sentence


def test_a_folder_that_holds_another_run_is_left_alone(folder, capsys):
    (folder / "others").mkdir()
    before = (folder / "run" / "run.json").read_bytes()
    assert "This folder holds another run" in told(capsys, "reconstruct", "others", "--out", "run")
    assert (folder / "run" / "run.json").read_bytes() == before


def test_a_folder_that_holds_something_else_is_left_alone(folder, capsys):
    (folder / "mine").mkdir()
    (folder / "mine" / "thesis.txt").touch()
    assert "is not empty and holds no quoin run" in told(capsys, "reconstruct", "photos", "--out", "mine")
    assert [path.name for path in (folder / "mine").iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder_to_write_to(folder, capsys):
    (folder / "file").touch()
    told(capsys, "reconstruct", "photos", "--out", "file")
    assert "Cannot write" in told(capsys, "reconstruct", "photos", "--out", "file/run")


def test_a_run_of_another_version_is_refused(folder, capsys):
    path = folder / "run" / "run.json"
    record = json.loads(path.read_text()) | {"format": 99, "quoin": "7.0"}
    path.write_text(json.dumps(record))
    for command in (["resume", "run"], ["reconstruct", "photos", "--out", "run"], ["evaluate", "run", "--truth", "x"]):
        assert "This run was made by quoin 7.0" in told(capsys, *command)
    assert json.loads(path.read_text()) == record


@pytest.mark.parametrize("damage", ["", "{", "[]", '{"format": 2}', "\0"])
def test_a_damaged_run_is_refused(damage, folder, capsys):
    (folder / "run" / "run.json").write_text(damage)
    assert "run.json" in told(capsys, "resume", "run")


def test_a_run_whose_settings_are_of_another_time_is_refused(folder, capsys):
    path = folder / "run" / "run.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"settings": {"train": {"stepz": 3}}}))
    sentence = told(capsys, "resume", "run")
    assert "which had other settings" in sentence
    assert "Did you mean 'steps'" in sentence
