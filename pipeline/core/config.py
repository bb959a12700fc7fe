"""Configuration: frozen models, YAML presets, ``section.key=value`` overrides, helpful refusals."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

import pydantic
import yaml

from quoin.pipeline.core.errors import QuoinError

Model = TypeVar("Model", bound=pydantic.BaseModel)


class StageConfig(pydantic.BaseModel):
    """Base of every stage's configuration: frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", validate_default=True)


class StageResult(pydantic.BaseModel):
    """Base of what a stage returns: small, plain JSON, kept in the stage's manifest entry."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


def nearest(word: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` or the list of what exists."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(names)}"


def digest(value: Any) -> str:
    """Short content hash of anything JSON can write (sorted keys)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping; raises QuoinError where the file is no mapping."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8
        raise QuoinError(f"Cannot read configuration: {error}", where=path, do="fix the file") from error
    if not isinstance(loaded, dict):
        raise QuoinError("A configuration file must be a mapping of keys", where=path, do="see configs/presets/")
    return loaded


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``over`` laid on top, mapping by mapping; a part of another ``kind`` replaces the whole part."""
    if "kind" in over and over["kind"] != base.get("kind"):
        return dict(over)
    out = dict(base)
    for key, value in over.items():
        old = out.get(key)
        out[key] = merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """``["train.steps=100"]`` as a nested mapping; values are read as YAML scalars."""
    out: dict[str, Any] = {}
    for pair in pairs:
        dotted, equals, text = pair.partition("=")
        if not equals or "." not in dotted:
            raise QuoinError("--set wants section.key=value", where=pair, do="write for example --set train.steps=2000")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise QuoinError(f"--set value is not readable: {error}", where=pair, do="quote the value") from error
        for key in reversed(dotted.split(".")):
            value = {key: value}
        out = merge(out, value)
    return out


def build(model: type[Model], values: Mapping[str, Any]) -> Model:
    """Validate ``values`` as ``model``; a wrong key or value becomes one clear QuoinError."""
    try:
        return model.model_validate(dict(values))
    except pydantic.ValidationError as error:
        raise _explain(model, error) from None


def _explain(model: type[pydantic.BaseModel], error: pydantic.ValidationError) -> QuoinError:
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    dotted = ".".join(path)
    if first["type"] == "extra_forbidden":
        owner = _submodel(model, path[:-1])
        hint = nearest(path[-1], owner.model_fields) if owner else "see docs/guide.md"
        return QuoinError("Unknown configuration key", where=dotted, do=hint)
    return QuoinError(
        f"Configuration value {first['input']!r} does not fit: {first['msg']}", where=dotted, do="change the value"
    )


def _submodel(model: type[pydantic.BaseModel], path: list[str]) -> type[pydantic.BaseModel] | None:
    """The model at ``path``; a part that may be of several kinds has its kind in the path, behind its name."""
    known: Any = model
    for part in path:
        if isinstance(known, type) and issubclass(known, pydantic.BaseModel):
            field = known.model_fields.get(part)
            known = field.annotation if field else None
        else:
            known = next((kind for kind in get_args(known) if kind.model_fields["kind"].default == part), None)
        if known is None:
            return None
    return known if isinstance(known, type) and issubclass(known, pydantic.BaseModel) else None
