"""Configuration: frozen models, YAML presets, ``section.key=value`` overrides, and errors that name the nearest key."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_args

import pydantic
import yaml

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.formatting import redact_urls

Model = TypeVar("Model", bound=pydantic.BaseModel)


class StageConfig(pydantic.BaseModel):
    """Base of every stage's configuration: frozen, and an unknown key is an error.

    ``RENAMED_KEYS``: new names by old ones. An old key is refused with the new name.
    """

    RENAMED_KEYS: ClassVar[Mapping[str, str]] = {}
    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )


class StageResult(pydantic.BaseModel):
    """Base of what a stage returns: small, plain JSON, kept in the stage's manifest entry."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


def suggest_closest(word: str, choices: Iterable[str]) -> str:
    """A hint for a misspelt word: ``did you mean 'x'?``, or the list of choices."""
    names = sorted(choices)
    close = difflib.get_close_matches(word, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known are: {', '.join(names)}"


def digest(value: Any) -> str:
    """Short content hash of anything JSON can write (sorted keys)."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; QuoinError where it holds something else."""
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: not UTF-8
        raise QuoinError(f"Cannot read configuration: {error}", where=path, hint="fix the file") from error
    if not isinstance(loaded, dict):
        raise QuoinError("A configuration file must be a mapping of keys", where=path, hint="see configs/presets/")
    return loaded


def merge_values(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with ``overrides`` laid on top, mapping by mapping; a part of another ``kind`` replaces the whole
    part."""
    if "kind" in overrides and overrides["kind"] != base.get("kind"):
        return dict(overrides)
    out = dict(base)
    for key, value in overrides.items():
        old = out.get(key)
        out[key] = merge_values(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return out


def parse_overrides(pairs: Iterable[str]) -> dict[str, Any]:
    """``["train.steps=100"]`` as a nested mapping; values are read as YAML scalars."""
    out: dict[str, Any] = {}
    for pair in pairs:
        if redact_urls(pair) != pair:
            hint = "give it by the environment or a file of its own, as docs/guide.md says"
            raise QuoinError("This setting holds a password, which would be stored in the run", where=pair, hint=hint)
        dotted, equals, text = pair.partition("=")
        if not equals or "." not in dotted:
            raise QuoinError(
                "--set wants section.key=value", where=pair, hint="write for example --set train.steps=2000"
            )
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise QuoinError(f"--set value is not readable: {error}", where=pair, hint="quote the value") from error
        for key in reversed(dotted.split(".")):
            value = {key: value}
        out = merge_values(out, value)
    return out


def validate_config(model: type[Model], values: Mapping[str, Any]) -> Model:
    """``values`` as a ``model``; QuoinError about the first wrong key or value."""
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
        renamed = getattr(owner, "RENAMED_KEYS", {}).get(path[-1])
        if renamed is not None:
            return QuoinError("A configuration key has a new name", where=dotted, hint=f"write {renamed} instead")
        hint = suggest_closest(path[-1], owner.model_fields) if owner else "see docs/guide.md"
        return QuoinError("Unknown configuration key", where=dotted, hint=hint)
    return QuoinError(
        f"Configuration value {first['input']!r} does not fit: {first['msg']}", where=dotted, hint="change the value"
    )


def _submodel(model: type[pydantic.BaseModel], path: list[str]) -> type[pydantic.BaseModel] | None:
    """The model at ``path``; a part that may be of several kinds has its kind in the path, behind its name."""
    annotation: Any = model
    for part in path:
        if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
            field = annotation.model_fields.get(part)
            annotation = field.annotation if field else None
        else:
            annotation = next(
                (kind for kind in get_args(annotation) if kind.model_fields["kind"].default == part), None
            )
        if annotation is None:
            return None
    return annotation if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel) else None
