"""The checkpoint files of a block: the last one, and the one before in case the last is damaged."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from quoin.fields.checkpoint import pack_checkpoint, read_checkpoint
from quoin.pipeline.storage.atomic import write_atomic
from quoin.pipeline.storage.run import Run

CHECKPOINT_FILE = "checkpoint.safetensors"
PREVIOUS_CHECKPOINT_FILE = "checkpoint-previous.safetensors"


def save_checkpoint(folder: Path, state: dict[str, Tensor], key: str) -> None:
    """Replace the block's checkpoint atomically. ``key`` names configuration and inputs: training resumes from its own
    key only."""
    if (folder / CHECKPOINT_FILE).exists():
        (folder / CHECKPOINT_FILE).replace(folder / PREVIOUS_CHECKPOINT_FILE)
    write_atomic(folder / CHECKPOINT_FILE, pack_checkpoint(state, key))


def load_checkpoint(
    folder: Path, key: str, warn: Callable[[str], None] = lambda sentence: None
) -> dict[str, Tensor] | None:
    """State of the block's checkpoint of this ``key``, or of the one before where it is damaged; None without any.

    ``warn`` gets a sentence about damage. QuoinError where a file was not written by quoin.
    """
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE):
        path = folder / name
        if not path.exists():
            continue
        content = read_checkpoint(path)
        if isinstance(content, str):
            warn(f"the checkpoint is damaged ({content}): resuming from the one before it, or from the beginning")
            path.unlink()
            continue
        saved_key, state = content
        return state if saved_key == key else None
    return None


def upload_checkpoint(run: Run, folder: Path) -> None:
    """Copy the checkpoint to the run's storage, for another machine to resume from."""
    within = folder.relative_to(run.path)
    run.storage.upload(
        (within / CHECKPOINT_FILE).as_posix(), backup_name=(within / PREVIOUS_CHECKPOINT_FILE).as_posix()
    )


def download_checkpoint(run: Run, folder: Path) -> None:
    """Copy the checkpoint that another machine left from the run's storage."""
    for name in (CHECKPOINT_FILE, PREVIOUS_CHECKPOINT_FILE):
        run.storage.download((folder.relative_to(run.path) / name).as_posix())
