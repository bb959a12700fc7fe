"""Blocks of the partition and their trained SDF bricks and models (scene.zarr/blocks, by partition and train)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.run import Run

Array = np.ndarray

_BLOCK_ID = re.compile(r"\w+")


@dataclass(frozen=True)
class Block:
    """One block: core of whole bricks, halo around it, the photos that see it and their share of view.

    ``photo_index`` [K] into Posed, most useful first; ``photo_weight`` [K] in (0, 1]: share of the photo that shows the
    block; ``photo_level`` [K] of its pyramid that the block is trained with; none given: 0 for all.
    """

    id: str
    core: BrickBox
    halo_bricks: int
    photo_index: Int[Array, "k"]
    photo_weight: Float[Array, "k"]
    cost: float = 1.0
    memory_bytes: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    photo_level: Int[Array, "k"] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if len(self.photo_level) == 0:
            object.__setattr__(self, "photo_level", np.zeros(len(self.photo_index), np.int64))

    @property
    def outer(self) -> BrickBox:
        """Core and halo."""
        return self.core.grow(self.halo_bricks)


@dataclass(frozen=True)
class Partition:
    """The lattice, the blocks, and the region of the world that is to be reconstructed.

    ``held_out`` [H] are photos (indices into Posed) that nothing after the poses may look at, but an evaluation.
    """

    lattice: Lattice
    blocks: list[Block]
    region_low_world: Float[Array, "3"]
    region_high_world: Float[Array, "3"]
    held_out: Int[Array, "h"] = field(default_factory=lambda: np.zeros(0, np.int64))

    def block(self, block_id: str) -> Block:
        return next(b for b in self.blocks if b.id == block_id)


def write_partition(run: Run, partition: Partition) -> None:
    """Store the lattice and all blocks, and remove those of an earlier partition."""
    arrays.delete_node(run.scene, "blocks")
    root = run.scene.require_group("blocks")
    root.update_attributes(
        {
            "lattice": partition.lattice.to_json(),
            "region_low_world": partition.region_low_world.tolist(),
            "region_high_world": partition.region_high_world.tolist(),
            "order": [b.id for b in partition.blocks],
            "cost": sum(b.cost for b in partition.blocks),
            "held_out": partition.held_out.tolist(),
        }
    )
    for b in partition.blocks:
        group = root.require_group(b.id)
        group.update_attributes(
            {
                "core_low": list(b.core.low),
                "core_high": list(b.core.high),
                "halo_bricks": b.halo_bricks,
                "cost": b.cost,
                "memory_bytes": b.memory_bytes,
                "notes": b.notes,
            }
        )
        arrays.write_array(group, "photo_index", np.asarray(b.photo_index, np.int64))
        arrays.write_array(group, "photo_weight", np.asarray(b.photo_weight, np.float64))
        arrays.write_array(group, "photo_level", np.asarray(b.photo_level, np.int64))


def read_partition(run: Run) -> Partition:
    """The partition that the stage partition committed."""
    run.require("partition")
    attrs = arrays.read_attributes(run.scene, "blocks")
    with arrays.translate_damage("blocks", "the partition cannot be read"):
        return Partition(
            Lattice.from_json(attrs["lattice"]),
            [_block(run, block_id) for block_id in attrs["order"]],
            np.array(attrs["region_low_world"], np.float64),
            np.array(attrs["region_high_world"], np.float64),
            np.array(attrs["held_out"], np.int64),
        )


def read_block(run: Run, block_id: str) -> tuple[Lattice, Block]:
    """The lattice and one block; the others are not read."""
    run.require("partition")
    attrs = arrays.read_attributes(run.scene, "blocks")
    with arrays.translate_damage("blocks", "the lattice cannot be read"):
        return Lattice.from_json(attrs["lattice"]), _block(run, block_id)


def read_total_cost(run: Run) -> float:
    """Cost of all blocks together."""
    run.require("partition")
    attrs = arrays.read_attributes(run.scene, "blocks")
    with arrays.translate_damage("blocks", "the cost of all blocks cannot be read"):
        return float(attrs["cost"])


def _block(run: Run, block_id: str) -> Block:
    if not _BLOCK_ID.fullmatch(block_id):  # it names folders
        raise ValueError(f"{block_id!r} is no name of a block")
    name = f"blocks/{block_id}"
    attrs = arrays.read_attributes(run.scene, name)
    with arrays.translate_damage(name, "this block cannot be read"):
        return Block(
            block_id,
            BrickBox(tuple(attrs["core_low"]), tuple(attrs["core_high"])),
            attrs["halo_bricks"],
            arrays.read_array(run.scene, f"{name}/photo_index"),
            arrays.read_array(run.scene, f"{name}/photo_weight"),
            attrs["cost"],
            attrs["memory_bytes"],
            dict(attrs["notes"]),
            arrays.read_array(run.scene, f"{name}/photo_level"),
        )


def read_held_out(run: Run) -> Int[Array, "h"]:
    """Photos that partition keeps out of all that follows; none before it is done."""
    if run.manifest("partition") is None:
        return np.zeros(0, np.int64)
    attrs = arrays.read_attributes(run.scene, "blocks")
    with arrays.translate_damage("blocks", "the photos held out cannot be read"):
        return np.array(attrs["held_out"], np.int64)


def held_out_key(run: Run, config: object = None) -> str:
    """What the held-out photos add to the key of a stage that does not need partition otherwise; "" where none are."""
    del config
    held_out = read_held_out(run).tolist()
    return f"without {held_out}" if held_out else ""


@dataclass(frozen=True)
class SdfBricks:
    """SDF samples of one block on the lattice: only bricks near its surface.

    ``bricks`` [M, 3] brick coordinates; ``sdf_voxels`` [M, B+1, B+1, B+1] float16, signed distance in voxels, positive
    outside, clipped to ±SDF_CLIP_VOXELS. A brick of the block's outer box that is absent holds no surface.
    """

    bricks: Int[Array, "m 3"]
    sdf_voxels: Float[Array, "m s s s"]


SDF_CLIP_VOXELS = 8.0


def write_sdf_bricks(run: Run, block_id: str, sdf: SdfBricks) -> None:
    """Put a block's SDF bricks under blocks/<id>/ (one chunk per brick)."""
    name, shape = f"blocks/{block_id}", sdf.sdf_voxels.shape
    arrays.write_array(run.scene, f"{name}/brick_index", np.asarray(sdf.bricks, np.int64))
    arrays.write_array(run.scene, f"{name}/sdf", sdf.sdf_voxels.astype(np.float16), chunks=(1, *shape[1:]))


def read_brick_index(run: Run, block_id: str) -> Int[Array, "m 3"]:
    """Coordinates of the bricks that a trained block holds."""
    return arrays.read_array(run.scene, f"blocks/{block_id}/brick_index")


def read_sdf_brick(run: Run, block_id: str, row: int) -> Float[Array, "s s s"]:
    """SDF samples [B+1, B+1, B+1] in voxels of row ``row`` of the block's brick index, float32."""
    return arrays.read_array(run.scene, f"blocks/{block_id}/sdf", row).astype(np.float32)


def write_block_model(run: Run, block_id: str, tensors: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Put a block's trained model under blocks/<id>/model: tensors by name, and what is needed to build it."""
    name = f"blocks/{block_id}/model"
    arrays.delete_node(run.scene, name)
    group = run.scene.require_group(name)
    for key, values in tensors.items():
        arrays.write_array(group, key, values)
    group.update_attributes(dict(metadata))


def read_block_model(run: Run, block_id: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """A block's trained model: its tensors by name, and what is needed to build it."""
    run.require(f"train/{block_id}")
    name = f"blocks/{block_id}/model"
    group: Any = arrays.find_node(run.scene, name)
    if group is None:
        raise QuoinError(
            "This block was trained by a quoin that did not keep its model",
            where=f"{run.location}, {block_id}",
            hint="train it again with quoin resume --force train",
        )
    with arrays.translate_damage(name, "the model of this block cannot be read"):
        return {key: arrays.read_array(group, key) for key in group.array_keys()}, dict(group.attrs)


def block_folder(run: Run, block_id: str) -> Path:
    """Local folder for a block's checkpoints and logs (run folder/work/blocks/<id>)."""
    folder = run.path / "work" / "blocks" / block_id
    folder.mkdir(parents=True, exist_ok=True)
    return folder
