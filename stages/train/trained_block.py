"""A trained block, opened again: what of its model is kept in the store, and what rays see of it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.fields.compile import compile_function, mark_dynamic
from quoin.fields.grids.dense_sdf import DenseSdf
from quoin.fields.grids.sparse_sdf import SparseSdf
from quoin.fields.model import BlockModel
from quoin.fields.renderer.density import DensityRenderer
from quoin.fields.sampler.background_samples import background_samples
from quoin.fields.sampler.base import GuidedSampler, RaySegments
from quoin.fields.sampler.window import occupied_interval
from quoin.pipeline.core.config import validate_config
from quoin.pipeline.scene.blocks import read_block_model, read_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.train.build import build_model
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.photo_set import BlockFrame

Array = np.ndarray

MIN_HALF_PRECISION_SIZE = 1 << 16  # numbers from which an array is kept in half precision
RAYS_PER_CHUNK_CPU, RAYS_PER_CHUNK_CUDA = (
    1 << 11,
    1 << 14,
)  # looked along at once: what fits in a core's cache, or fills a GPU
SAMPLES_PER_SHELL_CELL = 8  # samples of the cached volume along a cell of the shell
N_SHELL_STEPS = 96


class RayOutput(NamedTuple):
    """What rays see of a block between two distances, each weighted by what shows: Σ w c, Σ w, Σ w t, Σ w n.

    Distances ``t`` are from the camera along the ray; normals are in the world's frame. Where the ray ends in the
    block, its colour includes all that lies behind.
    """

    color: Float[Array, "n 3"]
    opacity: Float[Array, "n"]
    distance_m: Float[Array, "n"]
    normal: Float[Array, "n 3"]


RayRenderer = Callable[[Array, Array, Array, Array, Array], RayOutput]


def export_state(model: BlockModel, cache: DenseSdf, config: TrainConfig) -> tuple[dict[str, Array], dict[str, Any]]:
    """What ``load_ray_renderer`` needs of a trained block: arrays by name, and the configuration they belong to.

    Large ones, the tables and volumes, in half precision: near the surface an SDF is near 0, where halves are fine.
    """
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("layout.")}
    tensors = {**state, "cache": cache.values}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items() if tensor.numel()}
    kept = {
        name: a.astype(np.float16) if a.size >= MIN_HALF_PRECISION_SIZE and a.dtype.kind == "f" else a
        for name, a in arrays.items()
    }
    return kept, {"config": config.model_dump(mode="json")}


def load_ray_renderer(run: Run, block_id: str, device: str, *, fast: bool = True) -> RayRenderer:
    """``look(origin_world [3], directions [n, 3], near_m [n], far_m [n], ends [n])`` on a trained block: a Layer.

    Directions are unit, in the world's frame; each ray is followed from ``near_m`` to ``far_m``, and where it
    ``ends`` in this block on to infinity. Its appearance is that of a photo of exposure 1 in the scene, otherwise the
    mean of the block's photos.
    ``fast`` compiles first, which pays from about a frame on.
    """
    arrays, metadata = read_block_model(run, block_id)
    partition = read_partition(run)
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(partition.block(block_id).outer))
    config = validate_config(TrainConfig, metadata["config"])
    model, cache = restore_model(arrays, config, frame)
    return build_ray_renderer(model.to(device), cache.to(device), frame, config.outside.samples, device, fast=fast)


def restore_model(arrays: dict[str, Array], config: TrainConfig, frame: BlockFrame) -> tuple[BlockModel, DenseSdf]:
    """The model and the cached volume, with one row of appearance: the mean of all photos', exposures apart."""
    halves = {name: a.astype(np.float32) if a.dtype == np.float16 else np.asarray(a) for name, a in arrays.items()}
    tensors = {name: torch.from_numpy(a) for name, a in halves.items()}
    half_extent = torch.tensor(frame.half_extent, dtype=torch.float32)
    cache = DenseSdf.over_box(half_extent, config.cache.resolution)
    cache.values.copy_(tensors.pop("cache"))
    tensors["appearance.known"] = torch.zeros(1, 3)
    tensors["appearance.table"] = tensors["appearance.table"].mean(dim=0, keepdim=True)
    base = SparseSdf.over_box(half_extent, config.cache.resolution // 2)
    if "surface.base.values" in tensors:
        base.values, base.first = tensors["surface.base.values"], tensors["surface.base.first"]
    model = build_model(config, base, 1)
    empty = {name: value for name, value in model.state_dict().items() if not value.numel()}
    model.load_state_dict({**tensors, **empty})
    return model.eval().requires_grad_(False), cache


def build_ray_renderer(
    model: BlockModel, cache: DenseSdf, frame: BlockFrame, n_background: int, device: str, *, fast: bool
) -> RayRenderer:
    """``load_ray_renderer`` of a model that is at hand, with ``n_background`` samples behind the block."""
    mark_dynamic(cache.values, 0, 1, 2)
    if model.surface.base is not None:
        model.surface.base.mark_dynamic()
    render = _compiled(device) if fast else _render
    shell = occupied_cells(model, cache)
    n_rays, radius_m = RAYS_PER_CHUNK_CUDA if device.startswith("cuda") else RAYS_PER_CHUNK_CPU, frame.radius_m
    full = torch.arange(n_rays, device=device)

    def tensor(values: Array) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    @torch.no_grad()
    def render_rays(origin_world: Array, directions: Array, near_m: Array, far_m: Array, is_last: Array) -> RayOutput:
        along, near, far = tensor(directions), tensor(near_m / radius_m), tensor(far_m / radius_m)
        origins = tensor(frame.to_local(origin_world)).expand_as(along)
        ends_here = torch.from_numpy(is_last).to(device)
        begin, end, hits = near, far, far > near + 1e-6
        if shell is not None:
            spacing = cache.spacing * SAMPLES_PER_SHELL_CELL
            begin, end, is_occupied = occupied_interval(
                shell, cache.low, spacing, origins, along, near, far, N_SHELL_STEPS
            )
            hits &= is_occupied
        background_t = background_samples(far, torch.full_like(far, 0.5)[:, None].expand(-1, n_background))
        rays, packed = (origins, along, begin, end, background_t), torch.zeros(len(along), 11, device=device)
        for meets, render_function in ((hits, render), (ends_here & ~hits, _render_background)):
            index = torch.nonzero(meets)[:, 0]
            for part in index.split(n_rays) if len(index) else ():
                padded = part[full.clamp(max=len(part) - 1)] if fast else part  # what is compiled has one size
                packed[part] = render_function(model, cache, *(values[padded] for values in rays))[: len(part)]
        with_background, block_only, opacity, t, normal = packed.split([3, 3, 1, 1, 3], dim=1)
        color = torch.where(ends_here[:, None], with_background, block_only)
        color, opacity, t, normal = (p.cpu().numpy() for p in (color, opacity, t * radius_m, normal))
        return RayOutput(color, opacity[:, 0], t[:, 0], normal)

    return render_rays


def occupied_cells(model: BlockModel, cache: DenseSdf) -> Bool[Tensor, "x y z"] | None:
    """Cells of COARSE³ samples of the cached volume outside of which nothing shows; None where it does not tell.

    It tells of surfaces that were sampled by it. An SDF above 10 / sharpness is transparent: the logistic of NeuS is
    then 5·10⁻⁵ from 1, the Laplace density of VolSDF as near to 0; two samples more are for what the volume has missed.
    """
    if isinstance(model.renderer, DensityRenderer) or not isinstance(model.sampler, GuidedSampler):
        return None
    near = cache.values < 10.0 / model.renderer.inv_s() + 2.0 * cache.spacing
    return (
        torch.nn.functional.max_pool3d(
            near.float()[None, None], SAMPLES_PER_SHELL_CELL + 1, SAMPLES_PER_SHELL_CELL, ceil_mode=True
        )[0, 0]
        > 0
    )


@functools.cache
def _compiled(device: str) -> Callable[..., Tensor]:
    return compile_function(_render, device)


def _render(
    model: BlockModel,
    cache: DenseSdf,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    background_t: Tensor,
) -> Float[Tensor, "rays 11"]:
    """Colour with and without what lies ``behind``, opacity, distance and normal of rays that may meet the surface."""
    rays = RaySegments(origins, directions, near, far, model.surface.sdf, model.renderer, cache)
    t, deltas = model.sampler(rays, torch.full_like(near, 0.5)[:, None].expand(-1, model.sampler.n_jitter))
    return _render_packed(model, origins, directions, t, deltas, far > near, background_t)


def _render_background(
    model: BlockModel,
    cache: DenseSdf,
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    background_t: Tensor,
) -> Float[Tensor, "rays 11"]:
    """The same of rays that meet nothing but what lies behind: two samples in the block, without effect."""
    t = torch.stack([near, far], dim=1)
    nothing = torch.zeros_like(near, dtype=torch.bool)
    return _render_packed(model, origins, directions, t, torch.ones_like(t), nothing, background_t)


def _render_packed(
    model: BlockModel, origins: Tensor, directions: Tensor, t: Tensor, deltas: Tensor, hits: Tensor, out: Tensor
) -> Float[Tensor, "rays 11"]:
    photo, one = torch.zeros_like(hits, dtype=torch.int64), torch.ones_like(t[0, 0])
    packed = model.render(origins, directions, photo, t, deltas, hits, out, one, origins[:0])
    columns = (
        packed["color"],
        packed["inside"],
        packed["opacity"][:, None],
        packed["depth"][:, None],
        packed["normal"],
    )
    return torch.cat(columns, dim=1)
