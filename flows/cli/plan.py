"""``quoin plan``: the blocks of a run and the time, memory and disk of its stages, as tables."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.table import Table

from quoin.fields.device import device_name
from quoin.flows import capacity
from quoin.flows.capacity import estimate_stages
from quoin.flows.cli.errors import resume_command
from quoin.flows.session import run_settings
from quoin.pipeline.core.formatting import format_bytes, format_duration
from quoin.pipeline.storage.run import Run
from quoin.stages.partition.config import PartitionResult

MAX_LISTED_BLOCKS = 40  # blocks


def print_plan(run: Run, device: str = "cpu", workers: int = 1) -> None:
    """Print the blocks of a partitioned run, then memory, disk and time of the stages to come.

    For ``workers`` machines or GPUs that each have a ``device`` like the one here.
    """
    result = run.result("partition", PartitionResult)
    console = Console(width=110)
    blocks = Table("block", "photos", "points", "share of work", "memory", box=box.SIMPLE_HEAD)
    total_cost = max(sum(b.cost for b in result.blocks), 1e-9)
    listed = sorted(result.blocks, key=lambda block: -block.cost)[:MAX_LISTED_BLOCKS]
    for block in sorted(listed, key=lambda block: block.id):
        share = f"{block.cost / total_cost:.{0 if len(result.blocks) < MAX_LISTED_BLOCKS else 2}%}"
        blocks.add_row(block.id, str(block.n_photos), f"{block.n_points:,}", share, format_bytes(block.memory_bytes))
    console.print(blocks)
    if len(listed) < len(result.blocks):
        print(f"  and {len(result.blocks) - len(listed):,} smaller blocks")

    factors = capacity.time_factors(device)
    rows = estimate_stages(run, run_settings(run), factors, workers)
    stages = Table("stage", "time", "memory", "disk", "", box=box.SIMPLE_HEAD)
    for row in rows:
        stages.add_row(
            row["stage"],
            format_duration(row["seconds"]),
            format_bytes(row["memory_bytes"]),
            format_bytes(row["disk_bytes"]),
            row["note"],
        )
    console.print(stages)
    total, peak_bytes = sum(row["seconds"] for row in rows), max(row["memory_bytes"] for row in rows)
    disk = sum(row["disk_bytes"] for row in rows)
    print(
        f"  about {format_duration(total)}, {format_bytes(peak_bytes)} of memory at most, "
        f"{format_bytes(disk)} more disk"
    )
    name = device_name(device)
    if missing := [row["stage"] for row in rows if row["stage"] not in factors]:
        print(f"  times of {', '.join(missing)} are those of two CPU cores: they have not been run yet on {name}")
    else:
        print(f"  times are those of runs on {name}")
    if workers > 1:
        print(f"  and {workers:,} such workers share the work: reckoned from what one takes, not measured")
    print(f"  continue with: {resume_command(run.location)}")
