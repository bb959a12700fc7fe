"""Segmentation networks from ONNX or TorchScript files: open, run, and errors a user understands."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from quoin.pipeline.core.errors import QuoinError

N_CLASSES = 150  # of ADE20K's scene parsing


class SemanticNetwork(NamedTuple):
    """``predict`` takes an image [1, 3, h, w]; ``size`` (height, width) if it is fixed."""

    path: Path
    predict: Callable[[Tensor], Tensor]
    size: tuple[int, int] | None


def open_network(path: Path, device: str = "cpu") -> SemanticNetwork:
    """The network in a file, ONNX by its ending, else TorchScript. QuoinError where it cannot be read."""
    if not path.is_file():
        raise QuoinError("Semantic model file not found", where=path, hint="name an ONNX or TorchScript file")
    return _open_onnx(path) if path.suffix.lower() == ".onnx" else _open_script(path, device)


def unsupported_network(path: Path, what: str) -> QuoinError:
    """The error for a network with other inputs or outputs than expected."""
    hint = f"give a network of ADE20K's {N_CLASSES} classes: one RGB picture in, logits [1, {N_CLASSES}, h, w] out"
    return QuoinError(f"The semantic model {what}", where=path, hint=hint)


def _open_onnx(path: Path) -> SemanticNetwork:
    try:
        import onnxruntime
    except ImportError:
        raise QuoinError(
            "A semantic model in ONNX needs onnxruntime", where=path, hint='run: pip install "onnxruntime>=1.20"'
        ) from None
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:  # the runtime has a class of its own for every way to fail
        raise _read_error(path, error) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise unsupported_network(path, f"asks for {[list(i.shape) for i in inputs]}, not for one picture [1, 3, h, w]")
    height, width = inputs[0].shape[2:]

    def predict(picture: Tensor) -> Tensor:
        try:
            output = session.run(None, {inputs[0].name: picture.cpu().numpy()})
        except Exception as error:
            raise _input_error(path, picture, error) from error
        return torch.from_numpy(np.asarray(output[0]))

    return SemanticNetwork(
        path, predict, (height, width) if isinstance(height, int) and isinstance(width, int) else None
    )


def _open_script(path: Path, device: str) -> SemanticNetwork:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch exports otherwise now; its old files abound
            script = torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:
        raise _read_error(path, error) from error

    def predict(picture: Tensor) -> Tensor:
        try:
            output: Any = script(picture.to(device))
        except Exception as error:
            raise _input_error(path, picture, error) from error
        if isinstance(output, dict):  # some put them beside what they were trained with
            output = next((output[name] for name in ("logits", "out") if name in output), None)
        output = output[0] if isinstance(output, (tuple, list)) and output else output
        if not isinstance(output, Tensor):
            raise unsupported_network(path, f"gives no tensor but {type(output).__name__}")
        return output

    return SemanticNetwork(path, predict, None)


def _input_error(path: Path, picture: Tensor, error: Exception) -> QuoinError:
    return unsupported_network(path, f"does not take a picture {list(picture.shape)}: {_last_line(error)}")


def _read_error(path: Path, error: Exception) -> QuoinError:
    hint = "name an ONNX file (.onnx), or one that torch.jit.save wrote"
    return QuoinError(f"The semantic model cannot be read: {_last_line(error)}", where=path, hint=hint)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
