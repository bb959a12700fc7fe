"""Labels of photos from a user's segmentation network of ADE20K's 150 classes, in an ONNX or TorchScript file."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.storage.run import Run

Array = np.ndarray

NETWORK_EDGE_PX = 512  # longest edge of a network's input
SIDE_MULTIPLE_PX = 32  # both sides of the input are multiples of this
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photos, RGB in [0, 1]
# classes of ADE20K's scene parsing, counted from 0 in the order of its objectInfo150 (Zhou et al. 2017)
SKY_CLASSES = {"sky": 2}
TRANSIENT_CLASSES = {
    "person": 12, "car": 20, "boat": 76, "bus": 80, "truck": 83, "van": 102, "minibike": 116, "animal": 126,
    "bicycle": 127,
}  # fmt: skip
FLOOR_CLASSES, CEILING_CLASSES, WALL_CLASSES = (
    {"floor": 3, "rug": 28},
    {"ceiling": 5},
    {"wall": 0, "door": 14},
)  # as ManhattanSDF groups them
CLASSES_BY_LABEL = {
    labels.SKY: SKY_CLASSES,
    labels.TRANSIENT: TRANSIENT_CLASSES,
    labels.FLOOR: FLOOR_CLASSES,
    labels.CEILING: CEILING_CLASSES,
    labels.WALL: WALL_CLASSES,
}
N_CLASSES = 150  # of ADE20K's scene parsing


def label_photos(run: Run, path: Path, report: Reporter, device: str = "cpu") -> None:
    """Write the labels of posed photos that have none yet; held-out photos are left out.

    A photo is labeled at the smallest pyramid level whose longest edge is not below NETWORK_EDGE_PX.
    """
    posed = posed_images.read_posed(run)
    network = open_network(path, device)
    unlabeled = np.setdiff1d(np.arange(len(posed)), read_held_out(run)).tolist()
    with report.task("priors/labels", len(unlabeled), "photos") as advance:
        for done, index in enumerate(unlabeled):
            if priors.read_labels(run, index) is None:
                level = _level(posed.sizes[index])
                priors.write_labels(run, index, label_photo(posed_images.read_photo(run, index, level), network), level)
            advance(done + 1)


def label_photo(rgb: UInt8[Array, "h w 3"], network: SemanticNetwork) -> UInt8[Array, "h w"]:
    """Label of every pixel of a photo (``pipeline.imaging.labels``); QuoinError if the network's output is unusable."""
    with torch.no_grad():
        classes = class_map(network.predict(network_input(rgb, network.size)), rgb.shape[:2], network.path)
    label_of_class = np.full(N_CLASSES, labels.UNKNOWN, np.uint8)
    for label, classes_of in CLASSES_BY_LABEL.items():
        label_of_class[list(classes_of.values())] = label
    return label_of_class[classes.cpu().numpy()]


def network_input(rgb: UInt8[Array, "h w 3"], size: tuple[int, int] | None = None) -> Float[Tensor, "1 3 hh ww"]:
    """The photo resized to NETWORK_EDGE_PX, sides multiples of SIDE_MULTIPLE_PX, and normalized as ImageNet's.

    ``size`` (height, width), for a network of fixed input size: the photo is stretched to it.
    """
    picture = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255.0
    if size is None:
        longest = max(rgb.shape[:2])
        h, w = (
            max(SIDE_MULTIPLE_PX, round(NETWORK_EDGE_PX * side / longest / SIDE_MULTIPLE_PX) * SIDE_MULTIPLE_PX)
            for side in rgb.shape[:2]
        )
        size = h, w
    picture = functional.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (picture - mean) / std


def class_map(output: Tensor, shape: tuple[int, ...], path: Path) -> Int[Tensor, "h w"]:
    """ADE20K class of every pixel of a photo of ``shape``, from a network's logits or its map of classes.

    Logits [1, 150, h', w'] are interpolated, and the largest is taken; of a map of integers [1, h', w'] (or [h', w'],
    or [1, 1, h', w']) the nearest. QuoinError where the output is neither.
    """
    if output.ndim == 4 and output.shape[1] not in (1, N_CLASSES):
        raise unsupported_network(path, f"gives {output.shape[1]} classes, not {N_CLASSES}")
    if output.is_floating_point() and output.ndim == 4 and output.shape[:2] == (1, N_CLASSES):
        if not bool(torch.isfinite(output).all()):
            raise unsupported_network(path, "gives numbers that are not finite")
        return functional.interpolate(output.float(), shape, mode="bilinear", align_corners=False)[0].argmax(dim=0)
    if output.is_floating_point() or output.ndim < 2 or output.numel() != output.shape[-2] * output.shape[-1]:
        kind = "numbers" if output.is_floating_point() else "whole numbers"
        raise unsupported_network(path, f"gives {kind} {list(output.shape)}, neither logits nor a map of classes")
    low, high = int(output.min()), int(output.max())
    if low < 0 or high >= N_CLASSES:
        raise unsupported_network(path, f"gives classes from {low} to {high}, not from 0 to {N_CLASSES - 1}")
    plane = output.reshape(1, 1, *output.shape[-2:]).float()
    return functional.interpolate(plane, shape, mode="nearest-exact")[0, 0].long()


def _level(size: Int[Array, "2"]) -> int:
    """The smallest pyramid level whose long edge is not below NETWORK_EDGE_PX; 0 where even that is smaller."""
    level = int(np.floor(np.log2(max(int(size.max()) / NETWORK_EDGE_PX, 1.0))))
    return min(level, posed_images.PYRAMID_LEVELS - 1)


# -- networks ----------------------------------------------------------------------------------------------------------


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
