"""What decides, beside poses and settings, whether priors must be found again."""

from __future__ import annotations

import hashlib

from pipeline.blocks import held_out_key
from pipeline.config import digest
from pipeline.errors import QuoinError
from pipeline.run import Run
from stages.priors.config import PriorsConfig


def inputs(run: Run, config: PriorsConfig) -> str:
    """What priors read beside poses and settings: which photos are held out, and the semantic model's contents."""
    held_out = held_out_key(run)
    if config.semantic_model is None:
        return held_out
    try:
        with open(config.semantic_model, "rb") as handle:
            return digest([held_out, hashlib.file_digest(handle, "sha256").hexdigest()])
    except OSError as error:
        raise QuoinError(
            "The semantic model cannot be read", where=config.semantic_model, do="name an ONNX or TorchScript file"
        ) from error
