"""Every setting has a meaning, and is shown as --set takes it."""

from __future__ import annotations

import json

import pytest

from quoin.flows.cli.settings_table import list_settings, print_settings
from quoin.flows.settings import load_settings
from quoin.pipeline.core.errors import QuoinError


def test_every_setting_says_what_it_means():
    rows = list(list_settings(load_settings()))
    assert len(rows) > 80
    assert [row.key for row in rows if not row.meaning and not row.key.endswith(".kind")] == []
    assert all(row.meaning.endswith(".") and row.meaning[0] not in "a .,;" for row in rows if row.meaning)


def test_what_is_shown_can_be_set_again(capsys):
    print_settings(None, "draft", json_schema=False)
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    overrides = [line.partition("   (")[0] for line in lines]
    assert load_settings("default", [text for text in overrides if ".kind=" not in text]) == load_settings("draft")


def test_a_section_and_the_schema(capsys):
    print_settings("train.lr", "default", json_schema=False)
    out = capsys.readouterr().out
    assert "train.lr.grid=0.002   (> 0)" in out
    assert "pose." not in out
    print_settings(None, "default", json_schema=True)
    assert json.loads(capsys.readouterr().out)["properties"]["train"]
    with pytest.raises(QuoinError, match=r"no such setting .*[Dd]id you mean 'train.lr'"):
        print_settings("train.lrs", "default", json_schema=False)
