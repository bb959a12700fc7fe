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

CHECKPOINT_FILE = "checkpoint.safetensors"
PREVIOUS_CHECKPOINT_FILE = "checkpoint-before.safetensors"


def save_checkpoint(folder: Path, state: dict[str, Tensor], key: str) -> None:
    """Replace the block's checkpoint. ``key`` names configuration and inputs: only the same key goes on from it."""
    from safetensors.torch import save as pack

    if (folder / CHECKPOINT_FILE).exists():
        (folder / CHECKPOINT_FILE).replace(folder / PREVIOUS_CHECKPOINT_FILE)
    write_atomic(folder / CHECKPOINT_FILE, pack(state, metadata={"key": key, "sha256": checksum(state)}))


def load_checkpoint(
    folder: Path, key: str, warn: Callable[[str], None] = lambda sentence: None
) -> dict[str, Tensor] | None:
    """The block's checkpoint of this ``key``, or the one before where it is damaged, or None: then it starts anew.

    ``warn`` is told of damage. A file that is not quoin's is a QuoinError.
    """
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE):
        path = folder / name
        if not path.exists():
            continue
        content = _read(path)
        if isinstance(content, str):
            warn(f"the checkpoint is damaged ({content}): going on from the one before it, or from the beginning")
            path.unlink()
            continue
        saved_key, state = content
        return state if saved_key == key else None
    return None


def upload_checkpoint(run: Run, folder: Path) -> None:
    """Bring the checkpoint home, for another machine to go on from."""
    within = folder.relative_to(run.path)
    run.storage.upload(
        (within / CHECKPOINT_FILE).as_posix(), backup_name=(within / PREVIOUS_CHECKPOINT_FILE).as_posix()
    )


def download_checkpoint(run: Run, folder: Path) -> None:
    """Have the checkpoint here that another machine left."""
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE):
        run.storage.download((folder.relative_to(run.path) / name).as_posix())


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
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        return str(error)
    if "key" not in metadata:
        raise QuoinError("This is no checkpoint of quoin", where=path, hint="delete it, then quoin resume")
    if "sha256" in metadata and metadata["sha256"] != checksum(state):
        return "its checksum does not fit"
    return metadata["key"], state


def find_mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """What keeps a state from being taken over where ``expected`` is, in half a sentence; None where nothing does."""
    for name, tensor in expected.items():
        if name not in state:
            return f"it is of another method, without {name}"
        if state[name].shape != tensor.shape:
            return f"it is of another size: {name} is {list(state[name].shape)}, here {list(tensor.shape)}"
        if state[name].dtype != tensor.dtype:
            return f"it is of another kind: {name} is {state[name].dtype}, here {tensor.dtype}"
    unexpected = [name for name in state if name not in expected]
    return f"it is of another method, with {unexpected[0]}" if unexpected else None
