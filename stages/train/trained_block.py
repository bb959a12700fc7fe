"""A trained block: its model in the store, and rays rendered through it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from quoin.fields.device import compile_function, mark_dynamic
from quoin.fields.model import BlockModel, build_model
from quoin.fields.rays import RaySamples, RaySegments, background_samples
from quoin.fields.renderer.density import DensityRenderer
from quoin.fields.sampler.guided import GuidedSampler, occupied_interval
from quoin.fields.sdf_grids import DenseSdf, SparseSdf
from quoin.pipeline.core.config import validate_config
from quoin.pipeline.scene.blocks import read_block_model, read_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.train.config import TrainConfig
from quoin.stages.train.data.photo_set import BlockFrame

Array = np.ndarray

MIN_HALF_PRECISION_SIZE = 1 << 16  # arrays of so many numbers and more are kept in half precision
RAYS_PER_CHUNK_CPU = 1 << 11  # rays rendered together: what fits in a core's cache
RAYS_PER_CHUNK_CUDA = 1 << 14  # what fills a GPU
SAMPLES_PER_SHELL_CELL = 8  # samples of the SDF cache along a cell of the shell
N_SHELL_STEPS = 96  # of a march through the shell


class RayOutput(NamedTuple):
    """What rays show of a block between two distances, as sums over samples: Σ w c, Σ w, Σ w t, Σ w n.

    Distances t are from the camera along the ray; normals are in the world's frame. The color of a ray whose last block
    this is includes the background.
    """

    color: Float[Array, "n 3"]
    opacity: Float[Array, "n"]
    distance_m: Float[Array, "n"]
    normal: Float[Array, "n 3"]


RayRenderer = Callable[[Array, Array, Array, Array, Array], RayOutput]


def export_state(model: BlockModel, cache: DenseSdf, config: TrainConfig) -> tuple[dict[str, Array], dict[str, Any]]:
    """What ``load_ray_renderer`` needs of a trained block: arrays by name, and the configuration they belong to.

    Large arrays (tables and volumes) are in half precision, whose values near 0, near the surface, are fine enough.
    """
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("semantic.")}
    tensors = {**state, "cache": cache.values}
    arrays = {name: tensor.detach().cpu().numpy() for name, tensor in tensors.items() if tensor.numel()}
    kept = {
        name: a.astype(np.float16) if a.size >= MIN_HALF_PRECISION_SIZE and a.dtype.kind == "f" else a
        for name, a in arrays.items()
    }
    return kept, {"config": config.model_dump(mode="json")}


def load_ray_renderer(run: Run, block_id: str, device: str, *, fast: bool = True) -> RayRenderer:
    """The renderer ``(origin_world [3], directions [n, 3], near_m [n], far_m [n], is_last [n]) -> RayOutput``.

    Directions are unit vectors in the world's frame; a ray is rendered from ``near_m`` to ``far_m``, and to infinity
    where this block ``is_last`` on it. The appearance is the mean of the block's photos, the exposure 1.
    ``fast`` compiles first, which pays off from about one frame on.
    """
    arrays, metadata = read_block_model(run, block_id)
    partition = read_partition(run)
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(partition.block(block_id).outer))
    config = validate_config(TrainConfig, metadata["config"])
    model, cache = restore_model(arrays, config, frame)
    return build_ray_renderer(model.to(device), cache.to(device), frame, config.background.samples, device, fast=fast)


def restore_model(arrays: dict[str, Array], config: TrainConfig, frame: BlockFrame) -> tuple[BlockModel, DenseSdf]:
    """The model and the SDF cache; its only row of appearance is the mean of all photos, without their exposures."""
    halves = {name: a.astype(np.float32) if a.dtype == np.float16 else np.asarray(a) for name, a in arrays.items()}
    tensors = {name: torch.from_numpy(a) for name, a in halves.items()}
    half_extent = torch.tensor(frame.half_extent, dtype=torch.float32)
    cache = DenseSdf.over_box(half_extent, config.sdf_cache.resolution)
    cache.values.copy_(tensors.pop("cache"))
    tensors["appearance.log_exposure"] = torch.zeros(1, 3)
    tensors["appearance.table"] = tensors["appearance.table"].mean(dim=0, keepdim=True)
    initial_sdf = SparseSdf.over_box(half_extent, config.sdf_cache.resolution // 2)
    if "surface.initial_sdf.values" in tensors:
        initial_sdf.values = tensors["surface.initial_sdf.values"]
        initial_sdf.brick_start = tensors["surface.initial_sdf.brick_start"]
    model = build_model(config, initial_sdf, 1)
    empty = {name: value for name, value in model.state_dict().items() if not value.numel()}
    model.load_state_dict({**tensors, **empty})
    return model.eval().requires_grad_(False), cache


def build_ray_renderer(
    model: BlockModel, cache: DenseSdf, frame: BlockFrame, n_background: int, device: str, *, fast: bool
) -> RayRenderer:
    """``load_ray_renderer`` of a model in memory, with ``n_background`` samples behind the block."""
    mark_dynamic(cache.values, 0, 1, 2)
    if model.surface.initial_sdf is not None:
        model.surface.initial_sdf.mark_dynamic()
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
        rays = RaySegments(origins, along, near, far, far > near + 1e-6)
        hits = rays.hits
        if shell is not None:
            rays = occupied_interval(rays, shell, cache.low, cache.spacing * SAMPLES_PER_SHELL_CELL, N_SHELL_STEPS)
            hits = hits & rays.hits
        background_t = background_samples(far, torch.full_like(far, 0.5)[:, None].expand(-1, n_background))
        packed = torch.zeros(len(along), 11, device=device)
        for meets, render_function in ((hits, render), (ends_here & ~hits, _render_background)):
            index = torch.nonzero(meets)[:, 0]
            for part in index.split(n_rays) if len(index) else ():
                padded = part[full.clamp(max=len(part) - 1)] if fast else part  # what is compiled has one size
                packed[part] = render_function(model, cache, rays[padded], background_t[padded])[: len(part)]
        with_background, block_only, opacity, t, normal = packed.split([3, 3, 1, 1, 3], dim=1)
        color = torch.where(ends_here[:, None], with_background, block_only)
        color, opacity, t, normal = (p.cpu().numpy() for p in (color, opacity, t * radius_m, normal))
        return RayOutput(color, opacity[:, 0], t[:, 0], normal)

    return render_rays


def occupied_cells(model: BlockModel, cache: DenseSdf) -> Bool[Tensor, "x y z"] | None:
    """True for cells of SAMPLES_PER_SHELL_CELL³ samples of the cache that may be visible; None where it cannot say.

    The cache knows surfaces that were sampled by it. An SDF above 10 / inv_s is transparent: the logistic of NeuS is
    then 5·10⁻⁵ from 1, the Laplace density of VolSDF as near to 0; two samples more are for what the cache missed.
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
    model: BlockModel, cache: DenseSdf, rays: RaySegments, background_t: Float[Tensor, "rays background"]
) -> Float[Tensor, "rays 11"]:
    """Color with and without background, opacity, distance and normal of rays that may meet the surface."""
    jitter = torch.full_like(rays.near, 0.5)[:, None].expand(-1, model.sampler.n_jitter)
    return _render_packed(model, model.sample(rays, cache, jitter), rays.far > rays.near, background_t)


def _render_background(
    model: BlockModel, cache: DenseSdf, rays: RaySegments, background_t: Float[Tensor, "rays background"]
) -> Float[Tensor, "rays 11"]:
    """The same of rays that meet nothing but the background: two samples in the block, without effect."""
    t = torch.stack([rays.near, rays.far], dim=1)
    samples = RaySamples(rays, t, torch.ones_like(t))
    return _render_packed(model, samples, torch.zeros_like(rays.hits), background_t)


def _render_packed(
    model: BlockModel, samples: RaySamples, hits: Bool[Tensor, "rays"], background_t: Float[Tensor, "rays background"]
) -> Float[Tensor, "rays 11"]:
    rays = samples.rays
    rays = RaySegments(rays.origins, rays.directions, rays.near, rays.far, hits)
    condition = model.appearance(torch.zeros_like(hits, dtype=torch.int64))
    anneal, no_points = torch.ones_like(samples.t[0, 0]), rays.origins[:0]
    samples = RaySamples(rays, samples.t, samples.deltas)
    out = model.render(samples, background_t, condition, anneal, no_points)
    return torch.cat([out.color, out.block_color, out.opacity[:, None], out.depth[:, None], out.normal], dim=1)
