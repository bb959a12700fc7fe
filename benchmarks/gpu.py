"""A full training step of the default method on a GPU, its hash grids read by Triton and by PyTorch in one process.

    python -m benchmarks gpu          # keeps results/gpu.json
    python -m benchmarks.gpu --rays 1024 16384
    python -m benchmarks.gpu --device cpu --rays 64 --steps 5 --points 4096 --photo 64 48    # does it run at all?

A step of more rays is the default step in proportion: as many more patches and known points. Each row is printed when
it is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch

from benchmarks.ball import Ball, make_ball, make_trainer
from benchmarks.measure import Measured, Skipped, circumstances
from quoin.fields.compile import compiled
from quoin.fields.encoding import hash_grid
from quoin.fields.encoding.hash_grid import HashGrid, reads_by_triton
from quoin.stages.train.config import GuidedSampler, HashEncoding, TrainConfig

RAYS = (1024, 16_384, 131_072)
PHOTO = (1600, 1200)
GRID_POINTS = 1 << 20
WARM_UP, TURNS, PROFILED = 5, 5, 5
KERNELS = 25  # listed
NO_CUDA = "no CUDA device is usable here; quoin doctor says why"

Row = dict[str, Any]


def paths(device: str) -> list[str]:
    """The ways of reading grids to compare there."""
    return ["triton", "pytorch"] if reads_by_triton(device) else ["pytorch"]


def read_by(path: str) -> contextlib.AbstractContextManager:
    """Compile anew, with grids read this way."""
    torch._dynamo.reset()
    return mock.patch.object(hash_grid, "HAS_TRITON", path == "triton")


def measure(device: str, all_rays: list[int], n_steps: int, n_points: int, photo: tuple[int, int]) -> Row:
    """All rows: the grid alone, and a step of each size, its grids read in each way."""
    result: Row = {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "photo_px": list(photo),
        "grid_alone": say("grid", grid_alone(device, n_points)),
        "steps": [],
    }
    ball = make_ball(*photo)
    for rays in all_rays:
        for path in paths(device):
            with read_by(path):
                row = {"rays": rays, "grid": path, **step_of(ball, rays, n_steps, device)}
            result["steps"].append(say("step", row))
    return result


def step_of(ball: Ball, rays: int, n_steps: int, device: str) -> Row:
    """Time, memory and kernels of a step with ``rays`` rays."""
    usual = TrainConfig()
    more = rays / usual.rays
    config = usual.model_copy(
        update={"rays": rays, "points": int(usual.points * more), "patches": int(usual.patches * more)}
    )
    assert isinstance(config.sampler, GuidedSampler)
    forget(device)
    try:
        trainer = make_trainer(ball, config, device)
        first = seconds(trainer.advance, 1, device)
        seconds(trainer.advance, WARM_UP, device)
        turns = sorted(seconds(trainer.advance, n_steps, device) for _ in range(TURNS))
        kernels = kernels_of(trainer.advance, device)
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    step = turns[TURNS // 2]
    return {
        "rays_per_s": round(rays / step),
        "samples_per_s": round(rays * config.sampler.samples / step),
        "step_s": step,
        "step_s_least_and_most": [turns[0], turns[-1]],
        "first_step_s": first,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        **kernels,
    }


def grid_alone(device: str, n: int) -> Row:
    """Seconds for ``n`` points along rays in the default grid, forward alone and with the backward pass; agreement."""
    torch.manual_seed(0)
    encoding = HashEncoding()  # the default
    grid = HashGrid(encoding.levels, encoding.coarsest, encoding.finest, encoding.log2_table).to(device)
    torch.nn.init.normal_(grid.table)
    along = torch.linspace(-0.02, 0.02, 16, device=device)[:, None]
    points = torch.nn.functional.normalize(torch.randn(n // 16, 1, 3, device=device), dim=2) * (0.6 + along)
    points, slope = points.reshape(-1, 3), torch.randn(n // 16 * 16, grid.width, device=device)

    def forward(points: torch.Tensor, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, pull_back = grid.linearised(points)
        return features, pull_back(slope)

    found: dict[str, list[torch.Tensor]] = {}
    rows: Row = {"points": len(points)}
    for path in paths(device):
        with read_by(path):
            run = compiled(forward, device)

            def with_backward(run: Callable = run) -> None:
                grid.table.grad = None
                features, gradient = run(points, slope)
                (features.square().sum() + gradient.square().mean()).backward()

            def alone(run: Callable = run) -> None:
                with torch.no_grad():
                    run(points, slope)

            seconds(with_backward, 2, device), seconds(alone, 2, device)  # compiles
            rows[path] = {
                "forward_s": seconds(alone, 10, device),
                "with_backward_s": seconds(with_backward, 10, device),
            }
            assert grid.table.grad is not None
            found[path] = [*(value.detach() for value in run(points, slope)), grid.table.grad]
    if len(found) == 2:
        names = ("features", "slopes", "table gradient")
        pairs = zip(names, *found.values(), strict=True)
        rows["largest_difference"] = {k: float((a - b).abs().max() / b.abs().max()) for k, a, b in pairs}
    return rows


def kernels_of(step: Callable[[], object], device: str) -> Row:
    """Where the time of a step goes: the share of each kernel, and how much of the wall time any of them runs."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        wall = seconds(step, PROFILED, device) * PROFILED
    events = profiler.key_averages()
    if on_gpu:  # spans that the host names lie over the kernels
        cuda = torch.autograd.DeviceType.CUDA
        events = [e for e in events if e.device_type == cuda and not getattr(e, "is_user_annotation", False)]
    times = {e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1e6 for e in events}
    total = sum(times.values())
    longest = sorted(times, key=lambda name: -times[name])[:KERNELS]
    return {
        "busy_share": round(total / wall, 3),  # profiling slows the host down: a lower bound
        "kernel_shares": {name[:90]: round(times[name] / max(total, 1e-12), 4) for name in longest},
    }


def seconds(step: Callable[[], object], n: int, device: str) -> float:
    """Mean of ``n`` steps."""
    synchronise = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    synchronise()
    began = time.perf_counter()
    for _ in range(n):
        step()
    synchronise()
    return (time.perf_counter() - began) / n


def forget(device: str) -> None:
    """Free what the step before held."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def say(name: str, row: Row) -> Row:
    print(name, json.dumps(row), flush=True)
    return row


def case() -> tuple[Measured, Row]:
    """For ``python -m benchmarks gpu``."""
    if not torch.cuda.is_available():
        raise Skipped(NO_CUDA)
    began = time.monotonic()
    numbers = measure("cuda", list(RAYS), 20, GRID_POINTS, PHOTO)
    peak = max((row.get("peak_memory_bytes", 0) for row in numbers["steps"]), default=0)
    return Measured("python -m benchmarks gpu", 0, round(time.monotonic() - began, 2), peak), numbers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--rays", type=int, nargs="+", default=RAYS, help="of a step")
    parser.add_argument("--tf32", action="store_true", help="matrix products in TF32")
    parser.add_argument("--steps", type=int, default=20, help="in each of five turns")
    parser.add_argument("--points", type=int, default=GRID_POINTS, help="read in the grid alone")
    parser.add_argument("--photo", type=int, nargs=2, default=PHOTO, help="width and height of the 40 photos")
    asked = parser.parse_args()
    if asked.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(NO_CUDA)
    torch.set_float32_matmul_precision("high" if asked.tf32 else "highest")
    measured = measure(asked.device, asked.rays, asked.steps, asked.points, tuple(asked.photo))
    print(json.dumps({**circumstances(), **measured}, indent=1))


if __name__ == "__main__":
    main()
