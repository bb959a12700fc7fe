"""What a partitioned run will take: the sum of what its stages estimate, from sizes alone."""

from __future__ import annotations

import pytest

from quoin.flows.pipeline import STAGES
from quoin.flows.settings import load_settings
from quoin.pipeline.storage.stage import Cost, Workload, brick_bytes
from quoin.stages.partition.config import BlockPlan
from quoin.stages.train import stage as train


def block_plan(memory_bytes: int, pixels: int, n_bricks: int = 200) -> BlockPlan:
    corner = (0.0, 0.0, 0.0)
    return BlockPlan(
        id="b000",
        core_low_world=corner,
        core_high_world=corner,
        n_photos=30,
        n_points=100,
        cost=1.0,
        memory_bytes=memory_bytes,
        n_bricks=n_bricks,
        pixels=pixels,
    )


def estimates(blocks: list[BlockPlan], n_photos: int, steps: int, rays: int, n_workers: int = 1) -> dict[str, Cost]:
    """Costs by stage of photos of 800 x 600 pixels."""
    settings = load_settings("default", [f"train.steps={steps}", f"train.rays={rays}"])
    workload = Workload(n_photos, 0.48 * n_photos, 800.0, 32, blocks, n_workers)
    return {stage.name: stage.estimate(workload, getattr(settings, stage.name)) for stage in STAGES if stage.estimate}


def repeated(n_blocks: int, n_photos: int, n_workers: int = 1) -> dict[str, Cost]:
    """Costs of blocks of three sizes, trained on 300,000 rays each."""
    sizes = [(2 << 30, 10_000_000), (3 << 30, 19_000_000), (1 << 30, 5_000_000)]
    blocks = [block_plan(*sizes[i % 3]) for i in range(n_blocks)]
    return estimates(blocks, n_photos, steps=300, rays=1000, n_workers=n_workers)


def test_the_estimates_of_a_small_run() -> None:
    costs = repeated(3, 40, n_workers=2)
    assert list(costs) == ["priors", "train", "fuse", "report"]
    assert costs["train"].memory_bytes == 5 << 30, "the two largest at the same time"
    block_s = train.SECONDS_PER_BLOCK + 300_000 / train.RAYS_PER_S
    assert costs["train"].seconds == pytest.approx(train.COMPILE_SECONDS + 2 * block_s), "three, two at a time"
    assert costs["train"].disk_bytes > 500 * brick_bytes(32)
    for cost in costs.values():
        assert cost.memory_bytes > 0
        assert cost.disk_bytes > 0
        assert cost.seconds > 0


def test_ten_times_the_blocks_and_photos_take_ten_times_as_long() -> None:
    """Nothing grows with photos times blocks."""
    small, large = repeated(30, 600), repeated(300, 6000)
    for stage in small:
        assert 8 < large[stage].seconds / small[stage].seconds <= 10.01, stage


def test_workers_share_stereo_blocks_and_most_of_fusing() -> None:
    one, ten = repeated(300, 6000), repeated(300, 6000, n_workers=10)
    share = {stage: ten[stage].seconds / one[stage].seconds for stage in one}
    assert share["train"] == pytest.approx(0.1, abs=0.01)
    assert 0.1 < share["priors"] < 0.2, "sky is segmented by one process"
    assert share["fuse"] == pytest.approx(0.19)
    assert share["report"] == 1.0


def test_a_run_measured_elsewhere_is_predicted() -> None:
    """A finished demo: seconds by its manifests, 40 photos of 800 x 600, 300 steps of 1024 rays, two blocks."""
    blocks = [block_plan(3 << 30, 17_000_000, bricks) for bricks in (546, 534)]
    costs = estimates(blocks, 40, steps=300, rays=1024)
    took = {"priors": 180.5, "train": 123.3, "fuse": 26.3, "report": 7.0}
    for stage, seconds in took.items():
        assert costs[stage].seconds == pytest.approx(seconds, rel=0.3), stage
