"""Parts of a method that come in kinds (encodings, renderers, samplers): a file in their folder adds a kind.

The configuration class stands beside what it configures, has a ``kind`` of its own, and builds it::

    class NearSamplerConfig(SamplerConfig):
        kind: Literal["near"] = "near"
        samples: int = Field(8, ge=1)

        def build(self) -> NearSampler:
            return NearSampler(self.samples)

All modules of the folder count; there is no list to be kept. ``train.sampler={kind: near, samples: 4}`` chooses it.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Annotated, Any, Union

from pydantic import Field

from quoin.pipeline.core.config import StageConfig


class PartConfig(StageConfig):
    """Base of the configuration of a part that comes in kinds; subclasses say ``kind: Literal["name"] = "name"``."""

    kind: str


def any_kind_of(base: type[PartConfig], package: str) -> Any:
    """The type of a field that may be any configuration derived from ``base`` in the modules of ``package``.

    It is a pydantic union, told apart by ``kind``.
    """
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if not module.name.endswith("_triton"):  # kernels need a compiler that may be missing
            importlib.import_module(f"{package}.{module.name}")
    return Annotated[Union[tuple(base.__subclasses__())], Field(discriminator="kind")]  # noqa: UP007  (made at run time)
