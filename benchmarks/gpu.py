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

from benchmarks.ball import BallData, make_ball, make_trainer
from benchmarks.measure import BenchmarkSkipped, Measurement, describe_environment
from quoin.fields.device import compile_function
from quoin.fields.encoding import hash_grid
from quoin.fields.encoding.hash_grid import HashEncodingConfig, uses_triton
from quoin.fields.sampler.guided import GuidedSamplerConfig
from quoin.stages.train.config import TrainConfig

RAY_COUNTS = (1024, 16_384, 131_072)
PHOTO_SIZE_PX = (1600, 1200)
GRID_POINTS = 1 << 20
WARM_UP_STEPS, N_TIMING_ROUNDS, PROFILED_STEPS = 5, 5, 5
MAX_LISTED_KERNELS = 25  # listed
NO_CUDA = "no CUDA device is usable here; quoin doctor says why"

ResultRow = dict[str, Any]


def grid_backends(device: str) -> list[str]:
    """The ways of reading grids to compare there."""
    return ["triton", "pytorch"] if uses_triton(device) else ["pytorch"]


def use_backend(backend: str) -> contextlib.AbstractContextManager:
    """Compile anew, with grids read this way."""
    torch._dynamo.reset()
    return mock.patch.object(hash_grid, "HAS_TRITON", backend == "triton")


def measure_gpu(device: str, all_rays: list[int], n_steps: int, n_points: int, photo: tuple[int, int]) -> ResultRow:
    """All rows: the grid alone, and a step of each size, its grids read in each way."""
    result: ResultRow = {
        "matmul_precision": torch.get_float32_matmul_precision(),
        "photo_px": list(photo),
        "grid_alone": print_row("grid", measure_grid(device, n_points)),
        "steps": [],
    }
    ball = make_ball(*photo)
    for rays in all_rays:
        for backend in grid_backends(device):
            with use_backend(backend):
                row = {"rays": rays, "grid": backend, **measure_step(ball, rays, n_steps, device)}
            result["steps"].append(print_row("step", row))
    return result


def measure_step(ball: BallData, rays: int, n_steps: int, device: str) -> ResultRow:
    """Time, memory and kernels of a step with ``rays`` rays."""
    default_config = TrainConfig()
    ray_ratio = rays / default_config.rays
    config = default_config.model_copy(
        update={
            "rays": rays,
            "points": int(default_config.points * ray_ratio),
            "patches": int(default_config.patches * ray_ratio),
        }
    )
    assert isinstance(config.sampler, GuidedSamplerConfig)
    free_gpu_memory(device)
    try:
        trainer = make_trainer(ball, config, device)
        first = mean_step_s(trainer.train_step, 1, device)
        mean_step_s(trainer.train_step, WARM_UP_STEPS, device)
        turns = sorted(mean_step_s(trainer.train_step, n_steps, device) for _ in range(N_TIMING_ROUNDS))
        kernels = profile_kernels(trainer.train_step, device)
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    step = turns[N_TIMING_ROUNDS // 2]
    return {
        "rays_per_s": round(rays / step),
        "samples_per_s": round(rays * config.sampler.samples / step),
        "step_s": step,
        "step_s_least_and_most": [turns[0], turns[-1]],
        "first_step_s": first,
        "peak_memory_bytes": torch.cuda.max_memory_allocated() if device == "cuda" else None,
        **kernels,
    }


def measure_grid(device: str, n: int) -> ResultRow:
    """Seconds for ``n`` points along rays in the default grid, forward alone and with the backward pass; agreement."""
    torch.manual_seed(0)
    grid = HashEncodingConfig().build().to(device)  # the default
    torch.nn.init.normal_(grid.table)
    along = torch.linspace(-0.02, 0.02, 16, device=device)[:, None]
    points = torch.nn.functional.normalize(torch.randn(n // 16, 1, 3, device=device), dim=2) * (0.6 + along)
    points, output_gradient = points.reshape(-1, 3), torch.randn(n // 16 * 16, grid.width, device=device)

    def forward(points: torch.Tensor, output_gradient: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features, pull_back = grid.linearize(points)
        return features, pull_back(output_gradient)

    outputs: dict[str, list[torch.Tensor]] = {}
    rows: ResultRow = {"points": len(points)}
    for backend in grid_backends(device):
        with use_backend(backend):
            run = compile_function(forward, device)

            def with_backward(run: Callable = run) -> None:
                grid.table.grad = None
                features, gradient = run(points, output_gradient)
                (features.square().sum() + gradient.square().mean()).backward()

            def forward_only(run: Callable = run) -> None:
                with torch.no_grad():
                    run(points, output_gradient)

            mean_step_s(with_backward, 2, device), mean_step_s(forward_only, 2, device)  # compiles
            rows[backend] = {
                "forward_s": mean_step_s(forward_only, 10, device),
                "with_backward_s": mean_step_s(with_backward, 10, device),
            }
            assert grid.table.grad is not None
            outputs[backend] = [*(value.detach() for value in run(points, output_gradient)), grid.table.grad]
    if len(outputs) == 2:
        names = ("features", "slopes", "table gradient")
        pairs = zip(names, *outputs.values(), strict=True)
        rows["largest_difference"] = {k: float((a - b).abs().max() / b.abs().max()) for k, a, b in pairs}
    return rows


def profile_kernels(step: Callable[[], object], device: str) -> ResultRow:
    """Where the time of a step goes: the share of each kernel, and how much of the wall time any of them runs."""
    from torch.profiler import ProfilerActivity, profile

    on_gpu = device == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        wall = mean_step_s(step, PROFILED_STEPS, device) * PROFILED_STEPS
    events = profiler.key_averages()
    if on_gpu:  # spans that the host names lie over the kernels
        cuda = torch.autograd.DeviceType.CUDA
        events = [e for e in events if e.device_type == cuda and not getattr(e, "is_user_annotation", False)]
    times = {e.key: (e.self_device_time_total if on_gpu else e.self_cpu_time_total) / 1e6 for e in events}
    total = sum(times.values())
    longest = sorted(times, key=lambda name: -times[name])[:MAX_LISTED_KERNELS]
    return {
        "busy_share": round(total / wall, 3),  # profiling slows the host down: a lower bound
        "kernel_shares": {name[:90]: round(times[name] / max(total, 1e-12), 4) for name in longest},
    }


def mean_step_s(step: Callable[[], object], n: int, device: str) -> float:
    """Mean of ``n`` steps."""
    synchronise = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    synchronise()
    began = time.perf_counter()
    for _ in range(n):
        step()
    synchronise()
    return (time.perf_counter() - began) / n


def free_gpu_memory(device: str) -> None:
    """Free what the step before held."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def print_row(name: str, row: ResultRow) -> ResultRow:
    print(name, json.dumps(row), flush=True)
    return row


def measure_gpu_step() -> tuple[Measurement, ResultRow]:
    """For ``python -m benchmarks gpu``."""
    if not torch.cuda.is_available():
        raise BenchmarkSkipped(NO_CUDA)
    began = time.monotonic()
    numbers = measure_gpu("cuda", list(RAY_COUNTS), 20, GRID_POINTS, PHOTO_SIZE_PX)
    peak = max((row.get("peak_memory_bytes", 0) for row in numbers["steps"]), default=0)
    return Measurement("python -m benchmarks gpu", 0, round(time.monotonic() - began, 2), peak), numbers


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--rays", type=int, nargs="+", default=RAY_COUNTS, help="of a step")
    parser.add_argument("--tf32", action="store_true", help="matrix products in TF32")
    parser.add_argument("--steps", type=int, default=20, help="in each of five turns")
    parser.add_argument("--points", type=int, default=GRID_POINTS, help="read in the grid alone")
    parser.add_argument("--photo", type=int, nargs=2, default=PHOTO_SIZE_PX, help="width and height of the 40 photos")
    args = parser.parse_args()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(NO_CUDA)
    torch.set_float32_matmul_precision("high" if args.tf32 else "highest")
    measured = measure_gpu(args.device, args.rays, args.steps, args.points, tuple(args.photo))
    print(json.dumps({**describe_environment(), **measured}, indent=1))


if __name__ == "__main__":
    main()
