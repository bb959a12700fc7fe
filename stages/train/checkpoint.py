"""Checkpoints without pickle (safetensors), written so that a reader sees the old or the new one; fenced by attempt."""

from __future__ import annotations

from collections.abc import Mapping
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
    """The block's checkpoint of this ``key``, or None. A damaged file, or one not of quoin, is a QuoinError."""
    from safetensors import SafetensorError, safe_open

    path = folder / NAME
    if not path.exists():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            made_for = (file.metadata() or {}).get("key")
            if made_for is None:
                raise QuoinError("This is no checkpoint of quoin", where=path, do="delete it, then quoin resume")
            if made_for != key:
                return None
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, OSError) as error:
        raise QuoinError(
            f"The checkpoint cannot be read: {error}", where=path, do="delete it, then quoin resume"
        ) from None


def misfit(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str | None:
    """What keeps a state from being taken over where ``wanted`` is, in half a sentence; None where nothing does."""
    for name, tensor in wanted.items():
        if name not in found:
            return f"it is of another method, without {name}"
        if found[name].shape != tensor.shape:
            return f"it is of another size: {name} is {list(found[name].shape)}, here {list(tensor.shape)}"
        if found[name].dtype != tensor.dtype:
            return f"it is of another kind: {name} is {found[name].dtype}, here {tensor.dtype}"
    strange = [name for name in found if name not in wanted]
    return f"it is of another method, with {strange[0]}" if strange else None
