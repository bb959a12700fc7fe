"""The command line: what it refuses, and that it starts light."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flows.cli import run

HEAVY = {"torch", "ray", "prefect", "open3d", "pycolmap", "zarr", "numpy", "pydantic", "pyarrow", "PIL"}


def test_nothing_heavy_is_imported_before_a_command_runs():
    code = "import sys; from flows.cli import run; run(['--help']); print('modules', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(done.stdout.split("modules ")[-1].split())
    assert "flows.cli" in modules
    assert not modules & HEAVY


def test_version(capsys):
    from pipeline import __version__

    assert run(["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__


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
        (["reconstruct", "photos", "--masks", "absent"], "There is nothing here ('absent')"),
        (["resume", "photos"], "There is no run here"),
        (["resume", "absent"], "There is no run here"),
        (["plan", "absent"], "There are no photos here"),
    ],
)
def test_a_mistyped_command_gets_one_sentence_and_makes_nothing(arguments, sentence, tmp_path, monkeypatch, capsys):
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1
    assert [path.name for path in tmp_path.rglob("*")] == ["photos"]
