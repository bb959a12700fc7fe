"""A trained block, opened again: what of its model is kept in the store, and what rays see of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.fields.compile import compiled, free_sizes
from quoin.fields.grids.dense_sdf import Volume
from quoin.fields.grids.sparse_sdf import FineVolume
from quoin.fields.model import BlockModel
from quoin.fields.renderer.density import Density
from quoin.fields.sampler.background_samples import outside_samples
from quoin.fields.sampler.base import Guided, Stretch
from quoin.fields.sampler.window import shell_interval
from quoin.pipeline.core.config import build
from quoin.pipeline.scene.blocks import read_model, read_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.train.build import build_model
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.photo_set import BlockFrame

Array = np.ndarray

LARGE = 1 << 16  # numbers from which an array is kept in half precision
RAYS, RAYS_CUDA = 1 << 11, 1 << 14  # looked along at once: what fits in a core's cache, or fills a GPU
COARSE = 8  # samples of the cached volume along a cell of the shell
SHELL_STEPS = 96


class Layer(NamedTuple):
    """What rays see of a block between two distances, each weighted by what shows: Σ w c, Σ w, Σ w t, Σ w n.

    Distances ``t`` are from the camera along the ray; normals are in the world's frame. Where the ray ends in the
    block, its colour includes all that lies behind.
    """

    colour: Float[Array, "n 3"]
    opacity: Float[Array, "n"]
    distance_m: Float[Array, "n"]
    normal: Float[Array, "n 3"]


Look = Callable[[Array, Array, Array, Array, Array], Layer]


def to_keep(model: BlockModel, cache: Volume, config: TrainConfig) -> tuple[dict[str, Array], dict[str, Any]]:
    """What ``open_block`` needs of a trained block: arrays by name, and the configuration they belong to.

    Large ones, the tables and volumes, in half precision: near the surface an SDF is near 0, where halves are fine.
    """
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("layout.")}
    tensors = {**state, "cache": cache.values}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items() if tensor.numel()}
    kept = {name: a.astype(np.float16) if a.size >= LARGE and a.dtype.kind == "f" else a for name, a in arrays.items()}
    return kept, {"config": config.model_dump(mode="json")}


def open_block(run: Run, block_id: str, device: str, *, fast: bool = True) -> Look:
    """``look(origin_world [3], directions [n, 3], enter_m [n], leave_m [n], ends [n])`` on a trained block: a Layer.

    Directions are unit, in the world's frame; each ray is followed from ``enter_m`` to ``leave_m``, and where it
    ``ends`` in this block on to infinity. Its appearance is that of a photo of exposure 1 in the scene, otherwise the
    mean of the block's photos.
    ``fast`` compiles first, which pays from about a frame on.
    """
    arrays, about = read_model(run, block_id)
    partition = read_partition(run)
    frame = BlockFrame.around(*partition.lattice.box_world(partition.block(block_id).outer))
    config = build(TrainConfig, about["config"])
    model, cache = restored(arrays, config, frame)
    return look_through(model.to(device), cache.to(device), frame, config.outside.samples, device, fast=fast)


def restored(arrays: dict[str, Array], config: TrainConfig, frame: BlockFrame) -> tuple[BlockModel, Volume]:
    """The model and the cached volume, with one row of appearance: the mean of all photos', exposures apart."""
    halves = {name: a.astype(np.float32) if a.dtype == np.float16 else np.asarray(a) for name, a in arrays.items()}
    tensors = {name: torch.from_numpy(a) for name, a in halves.items()}
    half = torch.tensor(frame.half, dtype=torch.float32)
    cache = Volume.over(half, config.cache.resolution)
    cache.values.copy_(tensors.pop("cache"))
    tensors["appearance.known"] = torch.zeros(1, 3)
    tensors["appearance.table"] = tensors["appearance.table"].mean(dim=0, keepdim=True)
    base = FineVolume.over(half, config.cache.resolution // 2)
    if "surface.base.values" in tensors:
        base.values, base.first = tensors["surface.base.values"], tensors["surface.base.first"]
    model = build_model(config, base, 1)
    empty = {name: value for name, value in model.state_dict().items() if not value.numel()}
    model.load_state_dict({**tensors, **empty})
    return model.eval().requires_grad_(False), cache


def look_through(
    model: BlockModel, cache: Volume, frame: BlockFrame, n_outside: int, device: str, *, fast: bool
) -> Look:
    """``open_block`` of a model that is at hand, with ``n_outside`` samples behind the block."""
    free_sizes(cache.values, 0, 1, 2)
    if model.surface.base is not None:
        model.surface.base.free_sizes()
    render = _compiled(device) if fast else _render
    shell = occupied(model, cache)
    n_rays, metre = RAYS_CUDA if device.startswith("cuda") else RAYS, frame.radius_m
    full = torch.arange(n_rays, device=device)

    def tensor(values: Array) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    @torch.no_grad()
    def look(origin_world: Array, directions: Array, enter_m: Array, leave_m: Array, ends: Array) -> Layer:
        along, near, far = tensor(directions), tensor(enter_m / metre), tensor(leave_m / metre)
        origins = tensor(frame.to_local(origin_world)).expand_as(along)
        last = torch.from_numpy(ends).to(device)
        begin, end, hits = near, far, far > near + 1e-6
        if shell is not None:
            spacing = cache.spacing * COARSE
            begin, end, found = shell_interval(shell, cache.low, spacing, origins, along, near, far, SHELL_STEPS)
            hits &= found
        behind = outside_samples(far, torch.full_like(far, 0.5)[:, None].expand(-1, n_outside))
        rays, seen = (origins, along, begin, end, behind), torch.zeros(len(along), 11, device=device)
        for meets, how in ((hits, render), (last & ~hits, _miss)):
            index = torch.nonzero(meets)[:, 0]
            for part in index.split(n_rays) if len(index) else ():
                some = part[full.clamp(max=len(part) - 1)] if fast else part  # what is compiled has one size
                seen[part] = how(model, cache, *(values[some] for values in rays))[: len(part)]
        all_of_it, inside, opacity, distance, normal = seen.split([3, 3, 1, 1, 3], dim=1)
        colour = torch.where(last[:, None], all_of_it, inside)
        colour, opacity, distance, normal = (p.cpu().numpy() for p in (colour, opacity, distance * metre, normal))
        return Layer(colour, opacity[:, 0], distance[:, 0], normal)

    return look


def occupied(model: BlockModel, cache: Volume) -> Bool[Tensor, "x y z"] | None:
    """Cells of COARSE³ samples of the cached volume outside of which nothing shows; None where it does not tell.

    It tells of surfaces that were sampled by it. An SDF above 10 / sharpness is transparent: the logistic of NeuS is
    then 5·10⁻⁵ from 1, the Laplace density of VolSDF as near to 0; two samples more are for what the volume has missed.
    """
    if isinstance(model.renderer, Density) or not isinstance(model.sampler, Guided):
        return None
    near = cache.values < 10.0 / model.renderer.sharpness() + 2.0 * cache.spacing
    return torch.nn.functional.max_pool3d(near.float()[None, None], COARSE + 1, COARSE, ceil_mode=True)[0, 0] > 0


@functools.cache
def _compiled(device: str) -> Callable[..., Tensor]:
    return compiled(_render, device)


def _render(
    model: BlockModel, cache: Volume, origins: Tensor, directions: Tensor, enter: Tensor, leave: Tensor, behind: Tensor
) -> Float[Tensor, "rays 11"]:
    """Colour with and without what lies ``behind``, opacity, distance and normal of rays that may meet the surface."""
    rays = Stretch(origins, directions, enter, leave, model.surface.sdf, model.renderer, cache)
    distance, length = model.sampler(rays, torch.full_like(enter, 0.5)[:, None].expand(-1, model.sampler.n_jitter))
    return _seen(model, origins, directions, distance, length, leave > enter, behind)


def _miss(
    model: BlockModel, cache: Volume, origins: Tensor, directions: Tensor, enter: Tensor, leave: Tensor, behind: Tensor
) -> Float[Tensor, "rays 11"]:
    """The same of rays that meet nothing but what lies behind: two samples in the block, without effect."""
    distance = torch.stack([enter, leave], dim=1)
    nothing = torch.zeros_like(enter, dtype=torch.bool)
    return _seen(model, origins, directions, distance, torch.ones_like(distance), nothing, behind)


def _seen(
    model: BlockModel, origins: Tensor, directions: Tensor, distance: Tensor, length: Tensor, hits: Tensor, out: Tensor
) -> Float[Tensor, "rays 11"]:
    photo, one = torch.zeros_like(hits, dtype=torch.int64), torch.ones_like(distance[0, 0])
    seen = model.render(origins, directions, photo, distance, length, hits, out, one, origins[:0])
    one_by_one = (seen["colour"], seen["inside"], seen["opacity"][:, None], seen["depth"][:, None], seen["normal"])
    return torch.cat(one_by_one, dim=1)
