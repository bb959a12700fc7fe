"""Checkpoints without pickle (safetensors), written so that a reader sees the old or the new one; fenced by attempt."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from pipeline.errors import QuoinError
from pipeline.run import write_atomic

NAME = "checkpoint.safetensors"


def save(folder: Path, state: dict[str, Tensor], key: str) -> None:
    """Replace the block's checkpoint. ``key`` names configuration and inputs: only the same key goes on from it."""
    from safetensors.torch import save as pack

    write_atomic(folder / NAME, pack(state, metadata={"key": key}))


def load(folder: Path, key: str) -> dict[str, Tensor] | None:
    """The block's checkpoint of this ``key``, or None. A damaged file is a QuoinError."""
    from safetensors import SafetensorError, safe_open

    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get("key") != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, OSError) as error:
        raise QuoinError(
            f"The checkpoint cannot be read: {error}", where=path, do="delete it, then quoin resume"
        ) from None
