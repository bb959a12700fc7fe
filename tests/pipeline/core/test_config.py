"""Configuration: overrides, presets, and refusals that name the nearest known key."""

from __future__ import annotations

from pathlib import Path

import pydantic
import pytest

from quoin.pipeline.core.config import (
    StageConfig,
    digest,
    merge_values,
    parse_overrides,
    read_yaml,
    suggest_closest,
    validate_config,
)
from quoin.pipeline.core.errors import QuoinError


class Encoding(StageConfig):
    RENAMED_KEYS = {"n_levels": "levels"}
    levels: int = pydantic.Field(8, ge=1)


class Train(StageConfig):
    steps: int = pydantic.Field(100, gt=0)
    encoding: Encoding = Encoding()


class Settings(StageConfig):
    train: Train = Train()


def test_an_unknown_key_names_the_nearest_known_one():
    with pytest.raises(QuoinError) as caught:
        validate_config(Settings, {"train": {"stesp": 3}})
    assert caught.value.where == "train.stesp"
    assert "'steps'" in str(caught.value)


def test_an_unknown_key_two_floors_down_is_found():
    with pytest.raises(QuoinError) as caught:
        validate_config(Settings, {"train": {"encoding": {"level": 3}}})
    assert caught.value.where == "train.encoding.level"
    assert "'levels'" in str(caught.value)


def test_a_renamed_key_is_refused_with_its_new_name():
    with pytest.raises(QuoinError, match="Write levels instead") as caught:
        validate_config(Settings, {"train": {"encoding": {"n_levels": 3}}})
    assert caught.value.where == "train.encoding.n_levels"


def test_an_unknown_section_names_the_nearest_section():
    with pytest.raises(QuoinError, match="Did you mean 'train'"):
        validate_config(Settings, {"trian": {}})


@pytest.mark.parametrize("value", [0, -5, "many", None, 1.5, [1]])
def test_a_value_that_does_not_fit_is_one_sentence(value):
    with pytest.raises(QuoinError) as caught:
        validate_config(Settings, {"train": {"steps": value}})
    assert caught.value.where == "train.steps"
    assert "\n" not in str(caught.value)


def test_a_config_cannot_be_changed():
    with pytest.raises(pydantic.ValidationError):
        validate_config(Settings, {}).train.steps = 3  # type: ignore[misc]


def test_nearest_lists_what_exists_when_nothing_is_near():
    assert suggest_closest("qqqqqq", ["pose", "ingest"]) == "known are: ingest, pose"


def test_overrides_nest_read_yaml_scalars_and_the_last_one_wins():
    given = [
        "train.steps=10",
        "train.encoding.levels=4",
        "fuse.name=a=b",
        "fuse.on=true",
        "fuse.size=0.5",
        "train.steps=20",
    ]
    assert parse_overrides(given) == {
        "train": {"steps": 20, "encoding": {"levels": 4}},
        "fuse": {"name": "a=b", "on": True, "size": 0.5},
    }


@pytest.mark.parametrize("pair", ["steps", "train.steps", "steps=3", "=3", "train.steps=[1", "train.steps={a: b"])
def test_an_override_that_cannot_be_read_is_refused(pair):
    with pytest.raises(QuoinError) as caught:
        parse_overrides([pair])
    assert caught.value.where == pair


def test_merge_lays_mappings_on_top_and_replaces_the_rest():
    base = {"a": {"x": 1, "y": 2}, "b": 3}
    assert merge_values(base, {"a": {"y": 5}, "b": {"z": 1}}) == {"a": {"x": 1, "y": 5}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3}


def test_digest_does_not_depend_on_the_order_of_keys_but_on_every_value():
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert len({digest(v) for v in ({"a": 1}, {"a": 2}, {"a": 1.5}, {"b": 1}, {"a": "1"}, {"a": None})}) == 6


@pytest.mark.parametrize("text", ["- a\n- b\n", "just words", "a: [1, 2", "a: !!python/object/apply:os.getcwd []"])
def test_a_yaml_file_that_is_no_plain_mapping_is_refused(tmp_path: Path, text):
    path = tmp_path / "preset.yaml"
    path.write_text(text)
    with pytest.raises(QuoinError) as caught:
        read_yaml(path)
    assert caught.value.where == str(path)


def test_a_missing_or_binary_yaml_file_is_refused(tmp_path: Path):
    with pytest.raises(QuoinError):
        read_yaml(tmp_path / "absent.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x01\x80")
    with pytest.raises(QuoinError):
        read_yaml(tmp_path / "binary.yaml")


def test_an_empty_yaml_file_changes_nothing(tmp_path: Path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}
