"""A small committed run for the report's tests: a bumpy coloured ball on a plate, seen by a ring of cameras."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import trimesh
from PIL import Image

from quoin.pipeline.core.config import StageResult
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.geometry.cameras import look_at, project
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.geometry.similarity import Similarity
from quoin.pipeline.scene.blocks import Block, Partition, write_partition
from quoin.pipeline.scene.mesh_formats import GltfMesh, encode_glb
from quoin.pipeline.scene.photo_table import PhotoRow, write_photo_table
from quoin.pipeline.scene.posed_images import Posed, write_photo, write_posed, write_transform
from quoin.pipeline.storage.run import Run

Array = np.ndarray

HOSTILE = [
    "<script>alert(1)</script>.jpg",
    'quote" onload="alert(2).jpg',
    "line\nbreak & <b>bold</b>.jpg",
    "</script><img src=x onerror=alert(3)>.jpg",
    "城の写真 {{ 7*7 }}.jpg",
    "\u202egpj.exe\u202c.jpg",
    "n" * 250 + ".jpg",
]


def ball(subdivisions: int = 4) -> trimesh.Trimesh:
    """A bumpy ball of radius about 1 over a plate, with vertex colours; z up."""
    mesh = trimesh.creation.icosphere(subdivisions)
    v = mesh.vertices
    wave = np.sin(6 * v[:, 0]) * np.sin(6 * v[:, 1]) * np.sin(6 * v[:, 2])
    mesh.vertices = v * (1 + 0.08 * wave)[:, None]
    hue = np.stack([0.5 + 0.5 * np.sin(3 * v[:, k] + k) for k in range(3)], axis=1) * (0.75 + 0.5 * wave)[:, None]
    mesh.visual.vertex_colors = np.clip(255 * hue, 0, 255).astype(np.uint8)
    plate = trimesh.creation.box((3.4, 3.4, 0.1))
    plate = plate.subdivide_to_size(0.2)
    plate.apply_translation([0, 0, -1.1])
    checks = (np.floor(plate.vertices[:, 0] * 2) + np.floor(plate.vertices[:, 1] * 2)) % 2
    plate.visual.vertex_colors = np.clip((90 + 90 * checks)[:, None] * [1.0, 0.95, 0.85], 0, 255).astype(np.uint8)
    return trimesh.util.concatenate([mesh, plate])


def make_run(
    folder: Path,
    *,
    names: list[str] | None = None,
    size: tuple[int, int] = (120, 90),
    subdivisions: int = 3,
    upto: str = "fuse",
    n_points: int = 800,
    fraction_placed: float = 1.0,
) -> Run:
    """A run whose stages up to ``upto`` are committed with plausible results."""
    photos = folder / 'photos <of> "me"'
    photos.mkdir(parents=True)
    run = Run.create(folder / "run", photos=photos, settings={"train": {"steps": 300}, "ingest": {}}, seed=3)
    names = names or [f"IMG_{i:04d}.jpg" for i in range(10)]
    rng = np.random.default_rng(0)
    mesh = ball(subdivisions)
    stages = ["ingest", "pose", "partition", "train", "fuse"]
    for name in stages[: stages.index(upto) + 1]:
        {"ingest": _ingest, "pose": _pose, "partition": _partition, "train": _train, "fuse": _fuse}[name](
            run, names, size, mesh, rng, n_points, fraction_placed
        )
    return run


def commit(run: Run, stage: str, took_s: float, **values: object) -> None:
    """Put a manifest entry with any result."""
    model = type("AnyResult", (StageResult,), {"model_config": {"extra": "allow"}})
    run.commit(stage, f"key-{stage}", model(**values), took_s)


def _ingest(run: Run, names: list[str], size: tuple[int, int], *_: object) -> None:
    rows = [
        PhotoRow(name, "/p/" + name, photo_id=i, width=size[0], height=size[1], group=0) for i, name in enumerate(names)
    ]
    rows.append(PhotoRow("broken.jpg", "/p/broken.jpg").rejected(Reason.TRUNCATED))
    write_photo_table(run, rows)
    commit(run, "ingest", 1.5, n_found=len(rows), n_used=len(names), n_masks=0)


def cameras(n: int) -> Array:
    """cam_from_world [n, 3, 4] on a ring of radius 3.4 that rises and falls, looking at the ball."""
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)
    centers = np.stack([3.4 * np.cos(angle), 3.4 * np.sin(angle), 0.9 + 0.6 * np.sin(3 * angle)], axis=1)
    return np.stack([look_at(c, np.array([0.0, 0.0, -0.15])) for c in centers])


def _pose(
    run: Run,
    names: list[str],
    size: tuple[int, int],
    mesh: trimesh.Trimesh,
    rng: np.random.Generator,
    n_points: int,
    share: float,
) -> None:
    n = max(1, round(share * len(names)))
    poses, (width, height) = cameras(n), size
    intrinsics = np.tile([0.95 * width, 0.95 * width, width / 2, height / 2], (n, 1))
    points, face = trimesh.sample.sample_surface(mesh, n_points, seed=1)
    colors = mesh.visual.face_colors[face][:, :3]
    lengths = rng.integers(2, min(9, n + 1), n_points)
    seen = np.concatenate([rng.choice(n, k, replace=False) for k in lengths])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    xy = np.zeros((len(seen), 2))
    for i in range(n):
        mine = seen == i
        xy[mine] = project(poses[i], intrinsics[i], points[np.repeat(np.arange(n_points), lengths)[mine]])[0]
    posed = Posed(
        names=names[:n], photo_ids=np.arange(n), cam_from_world=poses, intrinsics=intrinsics,
        sizes=np.tile([width, height], (n, 1)), points_world=points, point_errors_px=rng.gamma(2.0, 0.25, n_points),
        point_colors=colors.astype(np.uint8), track_offsets=offsets, track_photo=seen, track_xy=xy,
    )  # fmt: skip
    write_posed(run, posed)
    write_transform(run, "world_from_sfm", Similarity(1.0, np.eye(3), np.zeros(3), "gravity from camera up-vectors"))
    import open3d as o3d

    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles(_o3d(mesh))
    for i in range(n):
        k = np.array([[intrinsics[i, 0], 0, width / 2], [0, intrinsics[i, 1], height / 2], [0, 0, 1]])
        rays = scene.create_rays_pinhole(k, np.vstack([poses[i], [0, 0, 0, 1]]), width, height)
        hit = scene.cast_rays(rays)["primitive_ids"].numpy().astype(np.int64)
        sky = np.linspace([150, 180, 215], [225, 228, 230], height)[:, None].repeat(width, 1)
        on = hit < len(mesh.faces)
        sky[on] = mesh.visual.face_colors[hit[on]][:, :3] * rng.uniform(0.85, 1.1)
        rgb = np.clip(sky + rng.normal(0, 3, sky.shape), 0, 255).astype(np.uint8)
        levels = [np.asarray(Image.fromarray(rgb).reduce(2**k)) for k in range(4)]
        write_photo(run, i, levels, np.full((height, width), 255, np.uint8))
    rows = [
        {"photo_id": i, "name": name, "registered": i < n, "component": 0 if i < n else -1,
         "n_points": int((seen == i).sum()), "reprojection_px": 0.4 + 0.02 * i if i < n else float("nan"),
         "focal_px": 0.95 * width if i < n else float("nan"), "reason": "" if i < n else Reason.FEW_MATCHES.value,
         "detail": ""}
        for i, name in enumerate(names)
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), run.table("poses"))
    commit(
        run, "pose", 32.0, n_photos=len(names), n_registered=n, n_components=1, n_points=n_points,
        mean_reprojection_px=0.5, median_reprojection_px=0.44, mapper="global",
        is_georeferenced=False, gravity_confidence=0.9, n_wall_directions=0, wall_confidence=0.0, warnings=[],
    )  # fmt: skip


def _o3d(mesh: trimesh.Trimesh):  # type: ignore[no-untyped-def]
    import open3d as o3d

    return o3d.t.geometry.TriangleMesh(
        o3d.core.Tensor(np.asarray(mesh.vertices, np.float32)), o3d.core.Tensor(np.asarray(mesh.faces, np.int32))
    )


BLOCKS = ["b000", "b001"]


def _partition(run: Run, names: list[str], *_: object) -> None:
    lattice = Lattice((-2.0, -2.0, -2.0), 4.0 / 64, 32)
    boxes = [BrickBox((0, 0, 0), (1, 2, 2)), BrickBox((1, 0, 0), (2, 2, 2))]
    n = len(run.scene["poses"].attrs["names"])  # type: ignore[arg-type]
    blocks = [Block(b, box, 0, np.arange(n), np.ones(n), 1.0, 900 << 20) for b, box in zip(BLOCKS, boxes, strict=True)]
    write_partition(run, Partition(lattice, blocks, np.full(3, -1.8), np.full(3, 1.8)))
    commit(run, "partition", 0.3, n_blocks=2, voxel_size_m=4.0 / 64)


def _train(run: Run, names: list[str], size: object, mesh: object, rng: np.random.Generator, *_: object) -> None:
    for k, block in enumerate(BLOCKS):
        step = np.arange(0, 3000)
        loss = 0.3 * np.exp(-step / 500) + 0.02 + 0.01 * rng.random(len(step))
        speed, psnr = 9000 + 500 * rng.random(len(step)), 26.5 + k - 14 * np.exp(-step / 400)
        series = {
            "loss": loss,
            "colour": loss * 0.7,
            "eikonal": loss * 0.1,
            "rays_per_s": speed,
            "heldout_psnr_db": psnr,
        }
        rows = [
            {"step": int(s), "seconds": s * 0.1, "name": name, "value": float(values[s])}
            for name, values in series.items()
            for s in step[:: 1 if name == "loss" else 10]
        ]
        pq.write_table(pa.Table.from_pylist(rows), run.table(f"train_{block}"))
        commit(
            run, f"train/{block}", 310.0 + k, block=block, steps=3000, seconds=309.5 + k, heldout_psnr_db=26.5 + k,
            rays_per_s=9250.0, n_bricks=4, peak_memory_bytes=1100 << 20, device="cpu",
        )  # fmt: skip
    commit(run, "train", 622.0, n_blocks=2, heldout_psnr_db=27.0)


def _fuse(run: Run, names: list[str], size: object, mesh: trimesh.Trimesh, *_: object) -> None:
    height = mesh.vertices[:, 2]
    mesh.vertex_attributes["confidence"] = ((height - height.min()) / np.ptp(height)).astype(np.float32)
    mesh.export(run.path / "mesh.ply")
    write_glb(run.path / "mesh.glb", mesh)
    commit(
        run, "fuse", 8.0, n_vertices=len(mesh.vertices), n_faces=len(mesh.faces), n_components=2, n_boundary_edges=0,
        n_torn_edges=0, largest_component_share=0.72, confident_share=0.625,
        seconds={"blend": 3.0, "extract": 4.5},
    )  # fmt: skip


def write_glb(path: Path, mesh: trimesh.Trimesh) -> None:
    """The mesh as fusion leaves it."""
    confidence = mesh.vertex_attributes.get("confidence")
    values = {} if confidence is None else {"confidence": confidence}
    at, normals = np.array(mesh.vertices, float), np.array(mesh.vertex_normals, np.float32)
    whole = GltfMesh(at, np.array(mesh.faces), normals, np.array(mesh.visual.vertex_colors)[:, :3], values)
    path.write_bytes(encode_glb(whole))
