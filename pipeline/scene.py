"""What the stages exchange, typed: photo table, posed photos, points and tracks, blocks. Read and written here only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import zarr
from jaxtyping import Float, Int, UInt8

from pipeline import store
from pipeline.errors import QuoinError
from pipeline.lattice import BrickBox, Lattice
from pipeline.pyramid import pyramid
from pipeline.run import Run
from pipeline.similarity import Similarity

Array = np.ndarray

# -- the photo table (tables/photos.parquet, by ingest) --------------------------------------------------------------

PHOTO_SCHEMA = pa.schema(
    [
        ("photo_id", pa.int64()),  # row number among used photos, in name order; -1 where not used
        ("name", pa.string()),  # path relative to the photo folder, with forward slashes; of a frame <clip>/000123.jpg
        ("path", pa.string()),  # absolute path of the file
        ("width", pa.int64()),  # upright (after EXIF orientation), pixels; 0 where unreadable
        ("height", pa.int64()),
        ("orientation", pa.int64()),  # EXIF orientation 1..8 of the file
        ("focal_px", pa.float64()),  # in pixels of the upright file, from EXIF; NaN where unknown
        ("camera", pa.string()),  # EXIF make, model, lens as one string; "" where unknown
        ("group", pa.int64()),  # photos of one group may share intrinsics
        ("latitude_deg", pa.float64()),  # NaN where unknown, as the next two
        ("longitude_deg", pa.float64()),
        ("altitude_m", pa.float64()),
        ("taken_at", pa.string()),  # EXIF time, "" where unknown
        ("mask_path", pa.string()),  # absolute path of its mask, "" where none
        ("depth_path", pa.string()),  # absolute path of its sensor's depth map, "" where none
        ("depth_unit_m", pa.float64()),  # metres per unit of that file
        ("depth_camera", pa.string()),  # absolute path of the depth camera's JSON, "" where it is the photo's camera
        ("border", pa.list_(pa.int64())),  # pixels at left, top, right, bottom that are a frame; null or zeros: none
        ("clip", pa.string()),  # name of the clip that it is a frame of; "" of photos
        ("time_s", pa.float64()),  # of a frame in its clip; NaN of photos
        ("content_hash", pa.string()),  # of the decoded upright pixels
        ("used", pa.bool_()),
        ("reason", pa.string()),  # why it is not used; "" where used
    ]
)


PHOTO_PATHS = ("path", "mask_path", "depth_path", "depth_camera")


def write_photo_table(run: Run, rows: list[dict[str, Any]]) -> None:
    """One row per file found, used or not (PHOTO_SCHEMA)."""
    rows = [row | {name: run.portable(row[name]) for name in PHOTO_PATHS if row.get(name)} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows, schema=PHOTO_SCHEMA), run.table("photos"))


def read_photo_table(run: Run, *, used_only: bool = False) -> list[dict[str, Any]]:
    """Rows of the photo table; with ``used_only`` row i has photo_id i."""
    rows = _photo_rows(run)
    return sorted((r for r in rows if r["used"]), key=lambda r: r["photo_id"]) if used_only else rows


def read_photo_rows(run: Run, photo_ids: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of these photos, in their order; of photos at a URL no others are brought to this machine."""
    row_of = {row["photo_id"]: row for row in _photo_rows(run, [("photo_id", "in", photo_ids)], alone=True)}
    return [row_of[photo_id] for photo_id in photo_ids]


def _photo_rows(run: Run, filters: list[tuple] | None = None, *, alone: bool = False) -> list[dict[str, Any]]:
    rows = pq.read_table(run.file("tables/photos.parquet"), filters=filters).to_pylist()
    for row in rows:
        row.update({name: run.local(row[name], alone=alone) for name in PHOTO_PATHS if row[name]})
    return rows


# -- posed photos, points, tracks (scene.zarr/poses, by pose) --------------------------------------------------------


@dataclass(frozen=True)
class Posed:
    """The posed photos of the component in use, index 0..N-1, and what SfM knows of the surface. World frame, float64.

    ``photo_ids`` [N] rows of the photo table; ``sizes`` [N, 2] width, height of the undistorted photo at level 0;
    ``intrinsics`` [N, 4] fx fy cx cy of it. Tracks in CSR form: point p was seen by photos
    ``track_photo[track_offsets[p]:track_offsets[p + 1]]`` (indices 0..N-1) at undistorted pixels ``track_xy``.
    """

    names: list[str]
    photo_ids: Int[Array, "n"]
    cam_from_world: Float[Array, "n 3 4"]
    intrinsics: Float[Array, "n 4"]
    sizes: Int[Array, "n 2"]
    points_world: Float[Array, "p 3"]
    point_errors_px: Float[Array, "p"]
    point_colors: UInt8[Array, "p 3"]
    track_offsets: Int[Array, "p+1"]
    track_photo: Int[Array, "t"]
    track_xy: Float[Array, "t 2"]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def track_point(self) -> Int[Array, "t"]:
        """Point index of every observation."""
        return np.repeat(np.arange(len(self.points_world)), np.diff(self.track_offsets))

    @property
    def track_lengths(self) -> Int[Array, "p"]:
        return np.diff(self.track_offsets)


def hide(posed: Posed, photos: Int[Array, "h"]) -> Posed:
    """``posed`` as if ``photos`` (indices) had seen nothing: without their tracks and points that under two others see.

    The photos keep their places and their poses.
    """
    if len(photos) == 0:
        return posed
    point = posed.track_point
    left = ~np.isin(posed.track_photo, photos)
    length = np.bincount(point[left], minlength=len(posed.points_world))
    kept = length >= 2
    left &= kept[point]
    return replace(
        posed,
        points_world=posed.points_world[kept],
        point_errors_px=posed.point_errors_px[kept],
        point_colors=posed.point_colors[kept],
        track_offsets=np.concatenate([[0], np.cumsum(length[kept])]),
        track_photo=posed.track_photo[left],
        track_xy=posed.track_xy[left],
    )


_POSED_ARRAYS = [
    "photo_ids",
    "cam_from_world",
    "intrinsics",
    "sizes",
    "points_world",
    "point_errors_px",
    "point_colors",
    "track_offsets",
    "track_photo",
    "track_xy",
]


def write_posed(run: Run, posed: Posed) -> None:
    """Put posed photos, points and tracks into the store."""
    store.delete(run.scene, "poses")
    for name in _POSED_ARRAYS:
        store.write(run.scene, f"poses/{name}", getattr(posed, name))
    run.scene["poses"].attrs["names"] = posed.names


def read_posed(run: Run) -> Posed:
    """What pose committed."""
    run.require("pose")
    arrays = {name: store.read(run.scene, f"poses/{name}") for name in _POSED_ARRAYS}
    names = run.scene["poses"].attrs["names"]
    return Posed(names=list(names), **arrays)  # type: ignore[arg-type, call-overload]


def write_frame(run: Run, name: str, transform: Similarity) -> None:
    """Store a hop between frames, e.g. ``world_from_sfm``."""
    run.scene.require_group("frame").attrs[name] = transform.to_json()


def read_frame(run: Run, name: str) -> Similarity | None:
    """A stored hop, or None."""
    data = read_frame_facts(run, name)
    return None if data is None else Similarity.from_json(data)


def read_frame_facts(run: Run, name: str) -> dict[str, Any] | None:
    """What is stored of ``name`` with the hops between frames, or None."""
    group = run.scene.get("frame")
    data = group.attrs.get(name) if isinstance(group, zarr.Group) else None
    return data if isinstance(data, dict) else None


# -- undistorted photos (scene.zarr/photos/<index>, by pose) ---------------------------------------------------------

PYRAMID_LEVELS = 4  # level k is 2^k times smaller, rounded down


def write_photo(run: Run, index: int, levels: list[UInt8[Array, "_ _ 3"]], mask: UInt8[Array, "h w"]) -> None:
    """Undistorted pyramid of one posed photo (level 0 first) and its level-0 mask: 255 use, 0 ignore."""
    for level, rgb in enumerate(levels):
        store.write(run.scene, f"photos/{index:06d}/rgb{level}", rgb)
    store.write(run.scene, f"photos/{index:06d}/mask", mask)


def read_photo(run: Run, index: int, level: int = 0) -> UInt8[Array, "h w 3"]:
    """Undistorted photo ``index`` at a pyramid level; what is smaller than the last in the store is made of that."""
    stored = min(level, PYRAMID_LEVELS - 1)
    return pyramid(store.read(run.scene, f"photos/{index:06d}/rgb{stored}"), level - stored + 1)[-1]


def read_mask(run: Run, index: int) -> UInt8[Array, "h w"]:
    """Level-0 mask of posed photo ``index``: 255 use, 0 ignore (user masks and undistortion borders together)."""
    return store.read(run.scene, f"photos/{index:06d}/mask")


# -- blocks (scene.zarr/blocks, by partition and train) --------------------------------------------------------------


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
    """Put the lattice and all blocks into the store (removing blocks of an earlier partition)."""
    store.delete(run.scene, "blocks")
    root = run.scene.require_group("blocks")
    root.attrs.update(
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
        group.attrs.update(
            {
                "core_low": list(b.core.low),
                "core_high": list(b.core.high),
                "halo_bricks": b.halo_bricks,
                "cost": b.cost,
                "memory_bytes": b.memory_bytes,
                "notes": b.notes,
            }
        )
        store.write(group, "photo_index", np.asarray(b.photo_index, np.int64))
        store.write(group, "photo_weight", np.asarray(b.photo_weight, np.float64))
        store.write(group, "photo_level", np.asarray(b.photo_level, np.int64))


def read_partition(run: Run) -> Partition:
    """What partition committed."""
    run.require("partition")
    root: Any = run.scene["blocks"]
    return Partition(
        Lattice.from_json(root.attrs["lattice"]),
        [_block(root, block_id) for block_id in root.attrs["order"]],
        np.array(root.attrs["region_low_world"]),
        np.array(root.attrs["region_high_world"]),
        _held_out(root),
    )


def read_block(run: Run, block_id: str) -> tuple[Lattice, Block]:
    """The lattice and one block, without a look at the others: who trains one of thousands needs no more."""
    run.require("partition")
    root: Any = run.scene["blocks"]
    return Lattice.from_json(root.attrs["lattice"]), _block(root, block_id)


def read_whole_cost(run: Run) -> float:
    """Cost of all blocks together."""
    run.require("partition")
    root: Any = run.scene["blocks"]
    known = root.attrs.get("cost")
    return float(known) if known is not None else sum(block.cost for block in read_partition(run).blocks)


def _block(root: Any, block_id: str) -> Block:
    group: Any = root[block_id]
    a = group.attrs
    return Block(
        block_id,
        BrickBox(tuple(a["core_low"]), tuple(a["core_high"])),
        a["halo_bricks"],
        store.read(group, "photo_index"),
        store.read(group, "photo_weight"),
        a["cost"],
        a["memory_bytes"],
        dict(a["notes"]),
        store.read(group, "photo_level"),
    )


def read_held_out(run: Run) -> Int[Array, "h"]:
    """Photos that partition keeps out of all that follows; none before it is done."""
    return _held_out(run.scene["blocks"]) if run.manifest("partition") else np.zeros(0, np.int64)


def _held_out(blocks: Any) -> Int[Array, "h"]:
    return np.array(blocks.attrs.get("held_out", []), np.int64)


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
    group = run.scene.require_group(f"blocks/{block_id}")
    shape = sdf.sdf_voxels.shape
    store.write(group, "brick_index", np.asarray(sdf.bricks, np.int64))
    store.write(group, "sdf", sdf.sdf_voxels.astype(np.float16), chunks=(1, *shape[1:]))


def read_brick_index(run: Run, block_id: str) -> Int[Array, "m 3"]:
    """Which bricks a trained block holds."""
    return store.read(run.scene, f"blocks/{block_id}/brick_index")


def read_sdf_brick(run: Run, block_id: str, row: int) -> Float[Array, "s s s"]:
    """SDF samples [B+1, B+1, B+1] in voxels of row ``row`` of the block's brick index, float32."""
    return store.read(run.scene, f"blocks/{block_id}/sdf", row).astype(np.float32)


def write_model(run: Run, block_id: str, arrays: Mapping[str, Array], about: Mapping[str, Any]) -> None:
    """Put a block's trained model under blocks/<id>/model: arrays by name, and what is needed to build it."""
    name = f"blocks/{block_id}/model"
    store.delete(run.scene, name)
    group = run.scene.require_group(name)
    for key, values in arrays.items():
        store.write(group, key, values)
    group.attrs.update(dict(about))


def read_model(run: Run, block_id: str) -> tuple[dict[str, Array], dict[str, Any]]:
    """A block's trained model: its arrays by name, and what is needed to build it."""
    run.require(f"train/{block_id}")
    group: Any = run.scene.get(f"blocks/{block_id}/model")
    if group is None:
        raise QuoinError(
            "This block was trained by a quoin that did not keep its model",
            where=f"{run.home}, {block_id}",
            do="train it again with quoin resume --force train",
        )
    return {name: store.read(group, name) for name in group.array_keys()}, dict(group.attrs)


def block_folder(run: Run, block_id: str) -> Path:
    """Local folder for a block's checkpoints and logs (run folder/work/blocks/<id>)."""
    folder = run.path / "work" / "blocks" / block_id
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# -- what held-out photos should look like (scene.zarr/renderings, by render) -----------------------------------------


@dataclass(frozen=True)
class Rendering:
    """What a camera would see of the trained blocks.

    ``colour`` in [0, 1] and may be beyond; ``normal`` unit, world frame, 0 where there is no surface; ``depth_m`` along
    the camera's z, 0 where there is no surface; ``opacity`` of all surfaces, in [0, 1].
    """

    colour: Float[Array, "h w 3"]
    normal: Float[Array, "h w 3"]
    depth_m: Float[Array, "h w"]
    opacity: Float[Array, "h w"]


def write_rendering(run: Run, index: int, rendering: Rendering) -> None:
    """Put what posed photo ``index`` should look like into the store."""
    for name, values in vars(rendering).items():
        kind = np.float32 if name == "depth_m" else np.float16
        store.write(run.scene, f"renderings/{index:06d}/{name}", values.astype(kind))


def read_rendering(run: Run, index: int) -> Rendering:
    """What posed photo ``index`` should look like."""
    names = ("colour", "normal", "depth_m", "opacity")
    return Rendering(*(store.read(run.scene, f"renderings/{index:06d}/{n}").astype(np.float32) for n in names))
