"""Labels of photos from a user's segmentation network (``network.py``) of ADE20K's 150 classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.storage.run import Run
from quoin.stages.priors.semantic.network import N_CLASSES, SemanticNetwork, open_network, unsupported_network

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
