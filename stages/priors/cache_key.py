"""Inputs of the priors' cache key beside poses and settings."""

from __future__ import annotations

from pathlib import Path

from quoin.pipeline.core.config import digest
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.blocks import held_out_key
from quoin.pipeline.storage.layout import sha256_of
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.config import PriorsConfig


def priors_key_inputs(run: Run, config: PriorsConfig) -> str:
    """Digest of the held-out photos and of the contents of the semantic model file."""
    held_out = held_out_key(run)
    if config.semantic_model is None:
        return held_out
    try:
        return digest([held_out, sha256_of(Path(config.semantic_model))])
    except OSError as error:
        raise QuoinError(
            "The semantic model cannot be read", where=config.semantic_model, hint="name an ONNX or TorchScript file"
        ) from error
