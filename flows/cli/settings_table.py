"""``quoin settings``: every setting with its value, range and meaning, as text or as a JSON schema."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from quoin.flows.settings import Settings, load_settings
from quoin.pipeline.core.config import suggest_closest
from quoin.pipeline.core.errors import QuoinError

WIDTH = 110  # characters


class Setting(NamedTuple):
    """One setting: its key as in ``--set key=value``, its value, what values it may have, and its meaning."""

    key: str
    value: Any
    allowed: str
    meaning: str


def print_settings(section: str | None, preset: str, *, json_schema: bool) -> None:
    """Print the settings of a preset, or those whose key begins with ``section``; QuoinError where none does."""
    if json_schema:
        print(json.dumps(Settings.model_json_schema(), indent=1))
        return
    rows = [row for row in list_settings(load_settings(preset)) if not section or in_section(row.key, section)]
    if not rows:
        raise QuoinError("There is no such setting", where=section, hint=suggest_closest(str(section), section_names()))
    for row in rows:
        print(f"{row.key}={format_value(row.value)}" + (f"   ({row.allowed})" if row.allowed else ""))
        if row.meaning:
            print(textwrap.fill(row.meaning, WIDTH, initial_indent="    ", subsequent_indent="    "))


def list_settings(model: BaseModel, prefix: str = "") -> Iterator[Setting]:
    """All settings of a model and of the models in it, in their order."""
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from list_settings(value, f"{prefix}{name}.")
        else:
            yield Setting(f"{prefix}{name}", value, describe_range(field), field.description or "")


def describe_range(field: FieldInfo) -> str:
    """The values that a setting may have: its choices, or its bounds; "" where any will do."""
    if get_origin(field.annotation) is Literal and len(get_args(field.annotation)) > 1:
        return "one of " + ", ".join(map(str, get_args(field.annotation)))
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<", "multiple_of": "a multiple of"}
    bounds = [
        (sign, getattr(item, name)) for item in field.metadata for name, sign in signs.items() if hasattr(item, name)
    ]
    return ", ".join(f"{sign} {value:g}" for sign, value in bounds if value is not None)


def format_value(value: Any) -> str:
    """A value as ``--set`` takes it."""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def in_section(key: str, section: str) -> bool:
    return key == section or key.startswith(f"{section}.")


def section_names() -> list[str]:
    """The stages, and the sections of their settings."""
    keys = [row.key.split(".") for row in list_settings(load_settings())]
    return sorted({".".join(parts[:n]) for parts in keys for n in range(1, len(parts) + 1)})
