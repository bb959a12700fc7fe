"""Checkpoints without pickle (safetensors), with a checksum; the one before is kept should the last be damaged.

A reader sees a whole one, old or new.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.atomic import write_atomic
from quoin.pipeline.storage.run import Run

NAME = "checkpoint.safetensors"
BEFORE = "checkpoint-before.safetensors"


def save(folder: Path, state: dict[str, Tensor], key: str) -> None:
    """Replace the block's checkpoint. ``key`` names configuration and inputs: only the same key goes on from it."""
    from safetensors.torch import save as pack

    if (folder / NAME).exists():
        (folder / NAME).replace(folder / BEFORE)
    write_atomic(folder / NAME, pack(state, metadata={"key": key, "sha256": checksum(state)}))


def load(folder: Path, key: str, warn: Callable[[str], None] = lambda sentence: None) -> dict[str, Tensor] | None:
    """The block's checkpoint of this ``key``, or the one before where it is damaged, or None: then it starts anew.

    ``warn`` is told of damage. A file that is not quoin's is a QuoinError.
    """
    for name in (NAME, BEFORE):
        path = folder / name
        if not path.exists():
            continue
        found = _read(path)
        if isinstance(found, str):
            warn(f"the checkpoint is damaged ({found}): going on from the one before it, or from the beginning")
            path.unlink()
            continue
        made_for, state = found
        return state if made_for == key else None
    return None


def share(run: Run, folder: Path) -> None:
    """Bring the checkpoint home, for another machine to go on from."""
    within = folder.relative_to(run.path)
    run.share((within / NAME).as_posix(), before=(within / BEFORE).as_posix())


def bring(run: Run, folder: Path) -> None:
    """Have the checkpoint here that another machine left."""
    for name in (NAME, BEFORE):
        run.bring((folder.relative_to(run.path) / name).as_posix())


def checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def _read(path: Path) -> tuple[str, dict[str, Tensor]] | str:
    """Key and state of a checkpoint, or what is wrong with it."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            said = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        return str(error)
    if "key" not in said:
        raise QuoinError("This is no checkpoint of quoin", where=path, do="delete it, then quoin resume")
    if "sha256" in said and said["sha256"] != checksum(state):
        return "its checksum does not fit"
    return said["key"], state


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
