"""Generate the demo: photos of the landmark, its true cameras and its true surface."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from pipeline.cameras import centers_world
from pipeline.progress import Reporter
from stages.demo.config import DemoConfig, DemoTruth

Array = np.ndarray
FOCAL_35MM, DIAGONAL_35MM = 33, 43.2666  # the lens, as EXIF writes it: relative to the diagonal of 36 x 24 mm
SENSOR_DIAGONAL_MM = 21.6333  # of the camera we pretend to be: a four-thirds sensor
PEOPLE_SHARE = 0.35  # of the photos


def focal_px(config: DemoConfig) -> float:
    """Focal length of the demo's lens for photos of this size."""
    return FOCAL_35MM / DIAGONAL_35MM * float(np.hypot(config.width, config.height))


def generate(folder: Path, config: DemoConfig, seed: int, report: Reporter) -> DemoTruth:
    """Write ``photos/*.jpg`` and ``truth/`` (mesh.ply, full.ply, transforms.json, demo.json) into ``folder``.

    The same seed and settings give the same photos. Exposure and tint change from photo to photo, people stand in about
    a third of them, or in all where a crowd is asked for. Returns the facts of demo.json.
    """
    from stages.demo import landmark, walk
    from stages.demo.materials import Noise, albedo
    from stages.demo.people import crowd, crowd_of
    from stages.demo.render import Solid, covered, raycaster, render
    from stages.demo.truth import seen_faces

    folder = folder.absolute()  # demo.json is read from anywhere
    photos, truth = folder / "photos", folder / "truth"
    photos.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    made = landmark.build(seed)
    noise = Noise(seed)
    caster = raycaster(made.vertices, made.faces)

    def paint(points: Array, normals: Array, face: Array) -> Array:
        return albedo(points, normals, made.material[face], noise, plain=config.plain)

    solid = Solid(caster, paint)
    poses = walk.cameras(config.n_photos, seed, config.look_up_deg)
    size = (config.width, config.height)
    focal = focal_px(config)
    intrinsics = np.array([focal, focal, config.width / 2, config.height / 2])
    names = [f"demo_{i:03d}.jpg" for i in range(config.n_photos)]

    shuffled = np.random.default_rng([seed, 5]).permutation(config.n_photos)
    peopled = set(shuffled[: round(PEOPLE_SHARE * config.n_photos)].tolist())

    def people_of(index: int, rng: np.random.Generator) -> Solid | None:
        if config.crowd is not None:
            share = config.crowd * rng.uniform(0.5, 1.5)
            return crowd_of(share, poses[index], intrinsics, size, noise, [seed, 6, index])
        spots = walk.passers_by(poses[index], rng) if index in peopled else np.zeros((0, 2))
        return crowd(spots, noise, rng) if len(spots) else None

    def take(index: int) -> Solid | None:
        rng = np.random.default_rng([seed, 4, index])
        gain = rng.uniform(*config.exposure) * (1 + rng.uniform(-config.tint, config.tint, 3))
        people = people_of(index, rng)
        gamma = float(np.exp(np.log(config.gamma) * rng.uniform(-1, 1)))
        solids = [solid] if people is None else [solid, people]
        save_photo(photos / names[index], render(solids, poses[index], intrinsics, size, noise, gain, gamma), index)
        return people

    with report.task("demo", config.n_photos, "photos") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        taken: list[Solid | None] = []
        for one in pool.map(take, range(config.n_photos)):
            taken.append(one)
            advance(len(taken))

    triangles = made.vertices[made.faces[made.inside]]
    shares = [covered(p, pose, intrinsics, size) if p else 0.0 for p, pose in zip(taken, poses, strict=True)]
    # who looks at a crowd cannot be asked for what it hides; the few people of a calm photo hide next to nothing
    crowds = [p.scene if p else None for p in taken] if config.crowd else None
    seen = seen_faces(caster, triangles, poses, intrinsics, size, before=crowds)
    write_mesh(truth / "full.ply", made.vertices, made.faces[made.inside])
    write_mesh(truth / "mesh.ply", made.vertices, made.faces[made.inside][seen])
    write_transforms(truth / "transforms.json", names, poses, intrinsics, size)
    corners = triangles[seen].reshape(-1, 3)
    facts = DemoTruth(
        photos=str(photos),
        mesh=str(truth / "mesh.ply"),
        full_mesh=str(truth / "full.ply"),
        cameras=str(truth / "transforms.json"),
        diagonal_m=float(np.linalg.norm(np.ptp(corners, axis=0))),
        region_low_m=landmark.REGION_LOW_M,
        region_high_m=landmark.REGION_HIGH_M,
        focal_px=focal,
        n_photos=config.n_photos,
        n_photos_with_people=sum(people is not None for people in taken),
        people_share=sum(shares) / len(shares),
        seed=seed,
    )
    (truth / "demo.json").write_text(facts.model_dump_json(indent=1), encoding="utf-8")
    return facts


def save_photo(path: Path, rgb: UInt8[Array, "h w 3"], index: int) -> None:
    """JPEG with the EXIF a camera writes: make, model, time, focal length in three ways that agree."""
    from PIL import ExifTags, Image
    from PIL.TiffImagePlugin import IFDRational

    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Quoin", "Demo"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    pixels_per_cm = 10 * float(np.hypot(*rgb.shape[:2])) / SENSOR_DIAGONAL_MM
    details[ExifTags.Base.FocalLengthIn35mmFilm] = FOCAL_35MM
    focal_mm = FOCAL_35MM / DIAGONAL_35MM * SENSOR_DIAGONAL_MM
    details[ExifTags.Base.FocalLength] = IFDRational(round(1000 * focal_mm), 1000)
    details[ExifTags.Base.FocalPlaneXResolution] = IFDRational(round(1000 * pixels_per_cm), 1000)
    details[ExifTags.Base.FocalPlaneYResolution] = IFDRational(round(1000 * pixels_per_cm), 1000)
    details[ExifTags.Base.FocalPlaneResolutionUnit] = 3  # centimetre
    details[ExifTags.Base.DateTimeOriginal] = f"2024:06:21 10:{index // 60 % 60:02d}:{index % 60:02d}"
    Image.fromarray(rgb).save(path, "JPEG", quality=92, exif=exif)


def write_mesh(path: Path, vertices: Float[Array, "v 3"], faces: Array) -> None:
    """A binary PLY of the faces and the vertices they use."""
    import trimesh

    used, index = np.unique(faces, return_inverse=True)
    trimesh.Trimesh(vertices[used], index.reshape(-1, 3), process=False).export(path)


def write_transforms(
    path: Path,
    names: list[str],
    cam_from_world: Float[Array, "n 3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
) -> None:
    """nerfstudio's transforms.json: camera-to-world, camera axes x right, y up, z backwards; no distortion."""
    frames = []
    for name, pose, center in zip(names, cam_from_world, centers_world(cam_from_world), strict=True):
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = pose[:, :3].T @ np.diag([1.0, -1.0, -1.0])
        world_from_cam[:3, 3] = center
        frames.append({"file_path": f"../photos/{name}", "transform_matrix": world_from_cam.tolist()})
    fx, fy, cx, cy = map(float, intrinsics)
    head = {"camera_model": "PINHOLE", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": size[0], "h": size[1]}
    path.write_text(json.dumps({**head, "frames": frames}, indent=1), encoding="utf-8")
