"""Rays per second of a full training step, ours against NeuS's, in turns in one process.

    python -m benchmarks.step RUN [METHOD …] [--device cuda]

RUN is a run folder that is partitioned; its first block is trained for the measure, nothing is kept.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks import neus_twin
from benchmarks.measure import describe_environment
from quoin.flows.settings import load_settings
from quoin.pipeline.scene.blocks import read_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.train.data.load import build_trainer
from quoin.stages.train.data.photo_set import BlockFrame

N_ROUNDS, STEPS_PER_ROUND = 5, 20  # one step a turn of all methods but quoin: they take seconds
START_SHARE = 0.3  # of the steps: all loss terms count by then


def quoin_step(run: Run, method: str, device: str) -> tuple[Callable[[], object], int]:
    """A step of a method on the run's first block, past its warm-up, and its rays."""
    partition = read_partition(run)
    block = partition.blocks[0]
    frame = BlockFrame.from_bounds(*partition.lattice.box_world(block.outer))
    config = load_settings(overrides=[f"train.method={method}"]).train
    trainer = build_trainer(run, config, block, frame, device)
    trainer.step = int(START_SHARE * config.steps)
    return trainer.train_step, config.rays


def mean_step_seconds(step: Callable[[], object], n: int, device: str) -> float:
    """Mean of ``n`` steps."""
    if device == "cuda":
        torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(n):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - began) / n


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("methods", nargs="*", default=["quoin"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    args = parser.parse_args()
    run = Run.open(args.run)
    steps = {name: quoin_step(run, name, args.device) for name in args.methods}
    steps["official NeuS step"] = (neus_twin.NeusStep(args.device), neus_twin.NEUS_RAYS)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step, _ in steps.values():
        mean_step_seconds(step, 2, args.device)  # compiles
    for _ in range(N_ROUNDS):
        for name, (step, _) in steps.items():
            times[name].append(mean_step_seconds(step, STEPS_PER_ROUND if name == "quoin" else 1, args.device))
    rates = {name: rays / statistics.median(times[name]) for name, (_, rays) in steps.items()}
    neus_rate = rates["official NeuS step"]
    rows = {
        name: {
            "rays_per_s": round(rate, 1),
            "step_s": round(statistics.median(times[name]), 4),
            "times_neus": round(rate / neus_rate, 1),
        }
        for name, rate in rates.items()
    }
    print(json.dumps({**describe_environment(), "threads": torch.get_num_threads(), "steps": rows}, indent=1))


if __name__ == "__main__":
    main()
