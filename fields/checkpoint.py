"""Checkpoints without pickle: a state of tensors in safetensors, with a key and a checksum."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def pack_checkpoint(state: dict[str, Tensor], key: str) -> bytes:
    """The content of a checkpoint file; ``key`` names what the state belongs to."""
    from safetensors.torch import save

    return save(state, metadata={"key": key, "sha256": checksum(state)})


def read_checkpoint(path: Path) -> tuple[str, dict[str, Tensor]] | str:
    """Key and state of a checkpoint file, or its damage in words."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
    except (SafetensorError, OSError, UnicodeDecodeError) as error:
        return str(error)
    if "key" not in metadata:
        return "it is not a checkpoint of quoin"
    if metadata.get("sha256") != checksum(state):
        return "its checksum does not match"
    return metadata["key"], state


def checksum(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)};".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def find_mismatch(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> str | None:
    """The first difference in names, shapes and types between two states, as part of a sentence; None without any."""
    for name, tensor in expected.items():
        if name not in state:
            return f"it is of another method, without {name}"
        if state[name].shape != tensor.shape:
            return f"it is of another size: {name} is {list(state[name].shape)}, here {list(tensor.shape)}"
        if state[name].dtype != tensor.dtype:
            return f"it is of another type: {name} is {state[name].dtype}, here {tensor.dtype}"
    unexpected = [name for name in state if name not in expected]
    return f"it is of another method, with {unexpected[0]}" if unexpected else None
