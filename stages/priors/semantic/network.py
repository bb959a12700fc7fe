"""A network that a user brings as a file, ONNX or TorchScript: opened, asked, and refused in one sentence."""

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


class Network(NamedTuple):
    """``ask`` takes a picture [1, 3, h, w]; ``size`` (height, width) where it takes one size only."""

    path: Path
    ask: Callable[[Tensor], Tensor]
    size: tuple[int, int] | None


def open_network(path: Path, device: str = "cpu") -> Network:
    """The network of a file; by its ending ONNX, else TorchScript. QuoinError where it cannot be read."""
    if not path.is_file():
        raise QuoinError("There is no semantic model here", where=path, do="name an ONNX or TorchScript file")
    return _open_onnx(path) if path.suffix.lower() == ".onnx" else _open_script(path, device)


def unfit(path: Path, what: str) -> QuoinError:
    """The error of a network that is not the kind that is asked for."""
    do = f"give a network of ADE20K's {N_CLASSES} classes: one RGB picture in, logits [1, {N_CLASSES}, h, w] out"
    return QuoinError(f"The semantic model {what}", where=path, do=do)


def _open_onnx(path: Path) -> Network:
    try:
        import onnxruntime
    except ImportError:
        raise QuoinError(
            "A semantic model in ONNX needs onnxruntime", where=path, do='run: pip install "onnxruntime>=1.20"'
        ) from None
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    providers = [p for p in wanted if p in onnxruntime.get_available_providers()]
    try:
        session = onnxruntime.InferenceSession(str(path), providers=providers)
    except Exception as error:  # the runtime has a class of its own for every way to fail
        raise _unreadable(path, error) from error
    inputs = session.get_inputs()
    if len(inputs) != 1 or len(inputs[0].shape) != 4:
        raise unfit(path, f"asks for {[list(i.shape) for i in inputs]}, not for one picture [1, 3, h, w]")
    height, width = inputs[0].shape[2:]

    def ask(picture: Tensor) -> Tensor:
        try:
            found = session.run(None, {inputs[0].name: picture.cpu().numpy()})
        except Exception as error:
            raise _refused(path, picture, error) from error
        return torch.from_numpy(np.asarray(found[0]))

    return Network(path, ask, (height, width) if isinstance(height, int) and isinstance(width, int) else None)


def _open_script(path: Path, device: str) -> Network:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # torch exports otherwise now; its old files abound
            script = torch.jit.load(str(path), map_location=device).eval()
    except Exception as error:
        raise _unreadable(path, error) from error

    def ask(picture: Tensor) -> Tensor:
        try:
            found: Any = script(picture.to(device))
        except Exception as error:
            raise _refused(path, picture, error) from error
        if isinstance(found, dict):  # some put them beside what they were trained with
            found = next((found[name] for name in ("logits", "out") if name in found), None)
        found = found[0] if isinstance(found, (tuple, list)) and found else found
        if not isinstance(found, Tensor):
            raise unfit(path, f"gives no tensor but {type(found).__name__}")
        return found

    return Network(path, ask, None)


def _refused(path: Path, picture: Tensor, error: Exception) -> QuoinError:
    return unfit(path, f"does not take a picture {list(picture.shape)}: {_last_line(error)}")


def _unreadable(path: Path, error: Exception) -> QuoinError:
    do = "name an ONNX file (.onnx), or one that torch.jit.save wrote"
    return QuoinError(f"The semantic model cannot be read: {_last_line(error)}", where=path, do=do)


def _last_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
