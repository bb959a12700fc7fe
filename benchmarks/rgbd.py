"""Indoor scenes with sensor depth: quoin with it and without it, beside a plain TSDF fusion of the same depth maps.

    python -m benchmarks.rgbd DATA WORK [livingroom | redkitchen] [--alone] [--set section.key=value ...]

Every second frame is given, with the set's poses; the truth is a TSDF of other depth than was given. Living room: the
set's noiseless depth of all frames, while the given maps have noise of σ = 1.5 mm · (z / m)² laid on them. Red kitchen:
the depth of the frames that were not given (same sensor and poses, other noise), which see only a part of what was
given: precision and recall suffer for all alike.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from benchmarks import rivals
from benchmarks.given import write_pose_transforms
from quoin.pipeline.scene.sensor_depth import SIGMA_PER_M

Array = np.ndarray

PIXEL_CENTER_OFFSET = np.array([0.5, 0.5])  # to be added where the first pixel's centre is said to be (0, 0)
PHOTO_FOCAL_PX, DEPTH_FOCAL_PX = 525.0, 585.0  # of the red kitchen, by the set's makers
# colour camera from depth camera of that Kinect: projet.liris.cnrs.fr/voir/activities-dataset/kinect-calibration.html
PHOTO_FROM_DEPTH = np.array(
    [
        [0.99996518012567637, 0.0026765126468950343, -0.0079041012313000904, -0.025558943178152542],
        [-0.0027409311281316700, 0.99996302803027592, -0.0081504520778013286, 0.00010109636268061706],
        [0.0078819942130445332, 0.0081718328771890631, 0.99993554558014031, 0.0020318321729487039],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
VOXEL_M, TRUNCATION_M, MAX_TSDF_DEPTH_M = 0.01, 0.04, 6.0
RGBD_DISTANCES_M = (0.02, 0.05)


@dataclass(frozen=True)
class RgbdFrames:
    """Photos, their depth maps, ``world_from_depth`` [n, 4, 4], and K of the depth camera."""

    photos: list[Path]
    depths: list[Path]
    world_from_depth: Float[Array, "n 4 4"]
    intrinsics: Float[Array, "3 3"]

    def part(self, rows: Array) -> RgbdFrames:
        """Some of them."""
        chosen = [self.photos[i] for i in rows], [self.depths[i] for i in rows]
        return RgbdFrames(*chosen, self.world_from_depth[rows], self.intrinsics)


def intrinsic_matrix(focal_px: float) -> Float[Array, "3 3"]:
    """K of 640 x 480 pixels whose middle is the principal point."""
    return np.array([[focal_px, 0.0, 320.0], [0.0, focal_px, 240.0], [0.0, 0.0, 1.0]])


def load_livingroom(folder: Path) -> RgbdFrames:
    """Augmented ICL-NUIM; ``trajectory.log`` has a line of numbers, then world_from_camera, per frame."""
    lines = (folder / "trajectory.log").read_text().split("\n")
    rows = {int(lines[i].split()[0]): lines[i + 1 : i + 5] for i in range(0, len(lines) - 4, 5)}
    photos = sorted((folder / "image").glob("*.jpg"))
    poses = np.array([[[float(v) for v in row.split()] for row in rows[int(photo.stem)]] for photo in photos])
    return RgbdFrames(
        photos, [folder / "depth" / f"{photo.stem}.png" for photo in photos], poses, intrinsic_matrix(525.0)
    )


def load_redkitchen(folder: Path) -> RgbdFrames:
    """7-Scenes; poses are of the depth camera."""
    photos = sorted(folder.glob("*.color.jpg"))
    named = [str(photo).removesuffix(".color.jpg") for photo in photos]
    poses = np.array([np.loadtxt(f"{name}.pose.txt") for name in named])
    return RgbdFrames(photos, [Path(f"{name}.depth.png") for name in named], poses, intrinsic_matrix(DEPTH_FOCAL_PX))


def fuse_tsdf(frames: RgbdFrames, depths: list[Path], out: Path) -> Path:
    """A mesh by Open3D's TSDF of ``depths`` (millimetres), at the frames' poses."""
    import open3d as o3d

    core = o3d.core
    kinds = core.float32, core.float32
    volume = o3d.t.geometry.VoxelBlockGrid(("tsdf", "weight"), kinds, ((1), (1)), VOXEL_M, 16, 40_000)
    k = frames.intrinsics.copy()
    k[:2, 2] -= PIXEL_CENTER_OFFSET
    tsdf_limits = 1000.0, MAX_TSDF_DEPTH_M, TRUNCATION_M / VOXEL_M
    for path, pose in zip(depths, frames.world_from_depth, strict=True):
        depth = o3d.t.geometry.Image(core.Tensor(np.asarray(Image.open(path)).astype(np.uint16)))
        camera = core.Tensor(k), core.Tensor(np.ascontiguousarray(np.linalg.inv(pose)))
        blocks = volume.compute_unique_block_coordinates(depth, *camera, *tsdf_limits)
        volume.integrate(blocks, depth, *camera, *tsdf_limits)
    mesh = volume.extract_triangle_mesh(weight_threshold=0.5).to_legacy()
    o3d.io.write_triangle_mesh(str(out), mesh)
    return out


def copy_with_noise(path: Path, out: Path, rng: np.random.Generator) -> Path:
    """A copy of a depth map with a structured-light sensor's noise."""
    depth = np.asarray(Image.open(path)).astype(np.float64)
    with_noise = np.round(depth + rng.normal(size=depth.shape) * SIGMA_PER_M * depth**2 / 1000.0)
    Image.fromarray(np.where(depth > 0, np.clip(with_noise, 1, 65534), 0).astype(np.uint16)).save(out)
    return out


def prepare_scene(name: str, data: Path, work: Path) -> tuple[list[str], RgbdFrames, Path]:
    """What to tell quoin, the given frames with the given depth maps, and the truth."""
    photos, given_depths = work / "photos", work / "depth"
    for folder in (photos, given_depths):
        folder.mkdir(parents=True, exist_ok=True)
    icl = name == "livingroom"
    frames = load_livingroom(data / "livingroom1_icl") if icl else load_redkitchen(data / "rgbd_7scenes_redkitchen")
    rows, rng = np.arange(0, len(frames.photos), 2), np.random.default_rng(0)
    part, truth_frames = frames.part(rows), frames if icl else frames.part(rows + 1)
    depths = []
    for photo, depth in zip(part.photos, part.depths, strict=True):
        stem = photo.name.split(".")[0]
        shutil.copyfile(photo, photos / f"{stem}.jpg")
        target = given_depths / f"{stem}.png"
        if icl:
            copy_with_noise(depth, target, rng)
        else:
            shutil.copyfile(depth, target)
        depths.append(target)
    photo_from_depth = np.eye(4) if icl else PHOTO_FROM_DEPTH
    poses = np.array([(photo_from_depth @ np.linalg.inv(pose))[:3] for pose in part.world_from_depth])
    k = intrinsic_matrix(PHOTO_FOCAL_PX)
    names = [path.with_suffix(".jpg").name for path in depths]
    cameras = write_pose_transforms(work / "transforms.json", names, np.repeat(k[None], len(names), axis=0), poses)
    options = ["--poses", str(cameras), "--set", "ingest.near_duplicates=keep"]
    if not icl:
        lens = {"fl_x": DEPTH_FOCAL_PX, "fl_y": DEPTH_FOCAL_PX, "cx": 320.0, "cy": 240.0, "w": 640, "h": 480}
        depth_camera_file = work / "depth_camera.json"
        depth_camera_file.write_text(
            json.dumps({**lens, "photo_from_depth": PHOTO_FROM_DEPTH.tolist()}), encoding="utf-8"
        )
        options += ["--set", f"ingest.depth_camera={depth_camera_file}"]
    truth = fuse_tsdf(truth_frames, truth_frames.depths, work / "truth.ply")
    return options, RgbdFrames(part.photos, depths, part.world_from_depth, part.intrinsics), truth


def format_row(name: str, mesh: Path, truth: Path, seconds: float) -> str:
    """A line of the table: precision, recall and F at the distances; completeness."""
    from quoin.tools.evaluate.reference_surface import read_surface
    from quoin.tools.evaluate.surface_scores import score_surface

    surface_score: Any = score_surface(read_surface(mesh), read_surface(truth), RGBD_DISTANCES_M)
    cells = [f"{s.precision:.3f} {s.recall:.3f} {s.f_score:.3f}" for s in surface_score.scores]
    return f"| {name} | {' | '.join(cells)} | {1000 * surface_score.completeness_median_m:.1f} | {seconds:.0f} |"


def main() -> None:
    """Reconstruct and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("scene", choices=["livingroom", "redkitchen"], nargs="?", default="livingroom")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--alone", action="store_true", help="by photos alone, with the planes of walls and without")
    options = parser.parse_args()
    work = options.work / options.scene
    quoin_options, frames, truth = prepare_scene(options.scene, options.data, work)
    print("| | P R F at 2 cm | P R F at 5 cm | completeness, median mm | seconds |\n|---|---|---|---|---|", flush=True)
    began = time.monotonic()
    fused = fuse_tsdf(frames, frames.depths, work / "tsdf.ply")
    print(format_row("TSDF of the given maps", fused, truth, time.monotonic() - began), flush=True)
    if options.alone:
        quoin_options = quoin_options[:4]  # nothing of a depth camera
        variants = {"photos alone": [], "photos alone, without planes": ["--set", "priors.planes=false"]}
    else:
        variants = {"with depth": ["--depth", str(work / "depth")]}
    previous_run: Path | None = None
    for name, extra_options in variants.items():
        out, began = work / name.replace(" ", "_"), time.monotonic()
        if previous_run is not None:
            rivals.copy_run(previous_run, out)
        settings = [part for value in options.set for part in ("--set", value)]
        command = [sys.executable, "-m", "quoin.flows.cli.app", "reconstruct", str(work / "photos"), "--out", str(out)]
        subprocess.run([*command, *quoin_options, *extra_options, *settings], check=True, stdout=sys.stderr)
        print(format_row(f"quoin {name}", out / "mesh.ply", truth, time.monotonic() - began), flush=True)
        previous_run = out


if __name__ == "__main__":
    main()
