"""Labels of photos by a semantic network that the user brings (``network.py``), of ADE20K's 150 classes."""

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
from quoin.stages.priors.semantic.network import N_CLASSES, Network, open_network, unfit

Array = np.ndarray

EDGE_PX, MULTIPLE = 512, 32  # long edge of what a network is given, and of what both sides are multiples
MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's photos, RGB in [0, 1]
# classes of ADE20K's scene parsing, counted from 0 in the order of its objectInfo150 (Zhou et al. 2017)
SKY = {"sky": 2}
PASSING = {
    "person": 12, "car": 20, "boat": 76, "bus": 80, "truck": 83, "van": 102, "minibike": 116, "animal": 126,
    "bicycle": 127,
}  # fmt: skip
FLOOR, CEILING, WALL = {"floor": 3, "rug": 28}, {"ceiling": 5}, {"wall": 0, "door": 14}  # as ManhattanSDF groups them
MEANING = {labels.SKY: SKY, labels.PASSING: PASSING, labels.FLOOR: FLOOR, labels.CEILING: CEILING, labels.WALL: WALL}


def label_photos(run: Run, path: Path, report: Reporter, device: str = "cpu") -> None:
    """Write the labels of posed photos that have none yet, each at the smallest pyramid level not below EDGE_PX.

    Photos held out are not looked at.
    """
    posed = posed_images.read_posed(run)
    network = open_network(path, device)
    todo = np.setdiff1d(np.arange(len(posed)), read_held_out(run)).tolist()
    with report.task("priors/labels", len(todo), "photos") as advance:
        for done, index in enumerate(todo):
            if priors.read_labels(run, index) is None:
                level = _level(posed.sizes[index])
                priors.write_labels(run, index, label_photo(posed_images.read_photo(run, index, level), network), level)
            advance(done + 1)


def label_photo(rgb: UInt8[Array, "h w 3"], network: Network) -> UInt8[Array, "h w"]:
    """What the pixels of one photo show (``pipeline.imaging.labels``); QuoinError if the network says else."""
    with torch.no_grad():
        classes = class_map(network.ask(prepared(rgb, network.size)), rgb.shape[:2], network.path)
    meaning = np.full(N_CLASSES, labels.UNKNOWN, np.uint8)
    for label, classes_of in MEANING.items():
        meaning[list(classes_of.values())] = label
    return meaning[classes.cpu().numpy()]


def prepared(rgb: UInt8[Array, "h w 3"], size: tuple[int, int] | None = None) -> Float[Tensor, "1 3 hh ww"]:
    """The photo as networks want it: EDGE_PX along its long edge, sides multiples of MULTIPLE, normalised.

    ``size`` (height, width) instead, where a network takes no other; the photo is stretched to it.
    """
    picture = torch.from_numpy(np.ascontiguousarray(rgb)).permute(2, 0, 1)[None].float() / 255.0
    if size is None:
        longest = max(rgb.shape[:2])
        h, w = (max(MULTIPLE, round(EDGE_PX * side / longest / MULTIPLE) * MULTIPLE) for side in rgb.shape[:2])
        size = h, w
    picture = functional.interpolate(picture, size, mode="bilinear", antialias=True, align_corners=False)
    mean, deviation = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, DEVIATION))
    return (picture - mean) / deviation


def class_map(output: Tensor, shape: tuple[int, ...], path: Path) -> Int[Tensor, "h w"]:
    """ADE20K class of every pixel of a photo of ``shape``, from a network's logits or its map of classes.

    Of logits [1, 150, h', w'], interpolated, the greatest; of a map of whole numbers [1, h', w'] (or [h', w'], or
    [1, 1, h', w']) the nearest. QuoinError where the output is neither.
    """
    if output.ndim == 4 and output.shape[1] not in (1, N_CLASSES):
        raise unfit(path, f"gives {output.shape[1]} classes, not {N_CLASSES}")
    if output.is_floating_point() and output.ndim == 4 and output.shape[:2] == (1, N_CLASSES):
        if not bool(torch.isfinite(output).all()):
            raise unfit(path, "gives numbers that are not finite")
        return functional.interpolate(output.float(), shape, mode="bilinear", align_corners=False)[0].argmax(dim=0)
    if output.is_floating_point() or output.ndim < 2 or output.numel() != output.shape[-2] * output.shape[-1]:
        kind = "numbers" if output.is_floating_point() else "whole numbers"
        raise unfit(path, f"gives {kind} {list(output.shape)}, neither logits nor a map of classes")
    low, high = int(output.min()), int(output.max())
    if low < 0 or high >= N_CLASSES:
        raise unfit(path, f"gives classes from {low} to {high}, not from 0 to {N_CLASSES - 1}")
    plane = output.reshape(1, 1, *output.shape[-2:]).float()
    return functional.interpolate(plane, shape, mode="nearest-exact")[0, 0].long()


def _level(size: Int[Array, "2"]) -> int:
    """The smallest pyramid level whose long edge is not below EDGE_PX; 0 where even that is smaller."""
    level = int(np.floor(np.log2(max(int(size.max()) / EDGE_PX, 1.0))))
    return min(level, posed_images.PYRAMID_LEVELS - 1)
