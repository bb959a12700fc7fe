"""Puts light stages into the pipeline, and light blocks into training, in processes with this folder on their path."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any


class LightStages:
    """Finds two modules of quoin, when they are imported: most processes need neither."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name == "quoin.stages.train.block_training":
            return importlib.util.spec_from_file_location(name, Path(__file__).parent / "light_block_training.py")
        if name != "quoin.flows.pipeline":
            return None
        sys.meta_path.remove(LightStages)
        spec = importlib.util.find_spec(name)
        sys.meta_path.insert(0, LightStages)
        assert spec is not None
        assert spec.loader is not None
        load = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            load(module)
            from light_stages import LIGHT_STAGES

            module.STAGES[:] = LIGHT_STAGES

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, LightStages)
