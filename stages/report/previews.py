"""Previews that training saved: a few of each block, from the first to the last."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from quoin.pipeline.storage.run import Run

MAX_PREVIEWS, MAX_PREVIEWS_PER_BLOCK = 40, 4  # pictures in the page, and of one block


@dataclass(frozen=True)
class Preview:
    """A photo, its rendering and the normals, side by side, after so many steps."""

    step: int
    uri: str


def read_previews(run: Run, block_ids: Sequence[str]) -> dict[str, list[Preview]]:
    """Previews by block, always with its last; of many blocks only those of the first ones."""
    n_per_block = min(MAX_PREVIEWS_PER_BLOCK, max(1, MAX_PREVIEWS // max(len(block_ids), 1)))
    out = {}
    for block_id in block_ids[:MAX_PREVIEWS]:
        files = run.files(f"work/blocks/{block_id}/preview")
        previews = sorted((int(path.stem), path) for path in files if path.suffix == ".jpg" and path.stem.isdigit())
        n = min(n_per_block, len(previews))
        chosen = [previews[len(previews) - 1 - len(previews) * k // n] for k in range(n)][::-1]
        if chosen:
            out[block_id] = [Preview(step, _uri(path.read_bytes())) for step, path in chosen]
    return out


def _uri(jpeg: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode('ascii')}"
