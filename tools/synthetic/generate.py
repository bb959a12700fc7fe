"""Generate the demo: photos of the landmark, the room or the town, their true cameras and the true surface."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.tools.synthetic.config import DemoConfig, DemoTruth

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import IFDRational

Array = np.ndarray
FOCAL_35MM = {
    "landmark": 33,
    "room": 25,
    "town": 33,
}  # the lens, as EXIF writes it: relative to the diagonal of 36 x 24 mm
DIAGONAL_35MM = 43.2666
FIRST_PHOTO_TIME = datetime(2024, 6, 21, 10)  # of the first photo; the others follow a second apart
SENSOR_DIAGONAL_MM = 21.6333  # of the camera we pretend to be: a four-thirds sensor


def demo_focal_px(config: DemoConfig) -> float:
    """Focal length of the scene's lens for photos of this size."""
    return FOCAL_35MM[config.scene] / DIAGONAL_35MM * float(np.hypot(config.width, config.height))


def generate_demo(folder: Path, config: DemoConfig, seed: int, report: Reporter) -> DemoTruth:
    """Write ``photos/*.jpg`` and ``truth/`` (mesh.ply, full.ply, transforms.json, masks, demo.json) into ``folder``.

    The same seed and settings give the same photos. Exposure and tint change from photo to photo. Before the landmark
    people stand in about a third of the photos, or in all where a crowd is asked for. The room's meshes carry a label
    of each face (pipeline/labels.py). Returns the facts of demo.json.
    """
    from quoin.tools.synthetic import photo_shoot
    from quoin.tools.synthetic.photo_renderer import Solid, covered_share, people_mask, render_photo
    from quoin.tools.synthetic.truth import visible_faces, write_mesh

    folder = folder.absolute()  # demo.json is read from anywhere
    photos, truth = folder / "photos", folder / "truth"
    photos.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    size = (config.width, config.height)
    focal = demo_focal_px(config)
    intrinsics = np.array([focal, focal, config.width / 2, config.height / 2])
    shot = photo_shoot.shoot_scene(config, intrinsics, seed)
    scene, poses = shot.scene, shot.cam_from_world
    digits = max(3, len(str(len(poses) - 1)))
    names = [f"demo_{i:0{digits}d}.jpg" for i in range(len(poses))]

    def take_photo(index: int) -> Solid | None:
        rng = np.random.default_rng([seed, 4, index])
        gain = rng.uniform(*config.exposure) * (1 + rng.uniform(-config.tint, config.tint, 3))
        people = shot.people_in(index, rng)
        gamma = float(np.exp(np.log(config.gamma) * rng.uniform(-1, 1)))
        grain = rng.normal(0, config.grain, (config.height, config.width, 3)) if config.grain else None
        rgb = render_photo(
            shot.radiance_function(people), poses[index], intrinsics, size, gain, gamma, grain, shot.samples
        )
        geodetic_position = None if shot.geodetic is None else shot.geodetic[index]
        save_photo(photos / names[index], rgb, FOCAL_35MM[config.scene], index, geodetic_position)
        return people

    with report.task("demo", len(poses), "photos") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        people_by_photo: list[Solid | None] = []
        for people_in_photo in pool.map(take_photo, range(len(poses))):
            people_by_photo.append(people_in_photo)
            advance(len(people_by_photo))

    region_faces = scene.faces[scene.is_in_region]
    labels = None if scene.label is None else scene.label[scene.is_in_region]
    triangles = scene.vertices[region_faces]
    shares = [
        covered_share(p, pose, intrinsics, size) if p else 0.0 for p, pose in zip(people_by_photo, poses, strict=True)
    ]
    for person, pose, name in zip(people_by_photo, poses, names, strict=True):
        if person is not None:
            people_pixels = people_mask(person, shot.solid, pose, intrinsics, size)
            save_mask(truth / "masks" / Path(name).with_suffix(".png"), people_pixels)
    # who looks at a crowd cannot be asked for what it hides; the few people of a calm photo hide next to nothing
    crowds = [p.scene if p else None for p in people_by_photo] if config.crowd else None
    seen = visible_faces(shot.solid.scene, triangles, poses, intrinsics, size, occluders=crowds)
    write_mesh(truth / "full.ply", scene.vertices, region_faces, labels)
    write_mesh(truth / "mesh.ply", scene.vertices, region_faces[seen], None if labels is None else labels[seen])
    write_demo_transforms(truth / "transforms.json", names, poses, intrinsics, size)
    corners = triangles[seen].reshape(-1, 3)
    facts = DemoTruth(
        photos=str(photos),
        mesh=str(truth / "mesh.ply"),
        full_mesh=str(truth / "full.ply"),
        cameras=str(truth / "transforms.json"),
        masks=str(truth / "masks") if any(people_by_photo) else None,
        diagonal_m=float(np.linalg.norm(np.ptp(corners, axis=0))),
        region_low_m=scene.region_low_m,
        region_high_m=scene.region_high_m,
        focal_px=focal,
        n_photos=len(poses),
        n_photos_with_people=sum(people is not None for people in people_by_photo),
        people_share=sum(shares) / len(shares),
        wall_yaws_deg=scene.wall_yaws_deg,
        seed=seed,
    )
    (truth / "demo.json").write_text(facts.model_dump_json(indent=1), encoding="utf-8")
    return facts


def save_mask(path: Path, hidden: Bool[Array, "h w"]) -> None:
    """A mask as ``--masks`` reads it: dark where the photo shows what is not the scene."""
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)).save(path)


def save_photo(
    path: Path, rgb: UInt8[Array, "h w 3"], focal_35mm: int, index: int, geodetic: Float[Array, "3"] | None = None
) -> None:
    """JPEG with the EXIF a camera writes: make, model, time, focal length in three ways that agree, its place."""
    from PIL import ExifTags, Image
    from PIL.TiffImagePlugin import IFDRational

    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Quoin", "Demo"
    details = exif.get_ifd(ExifTags.IFD.Exif)
    pixels_per_cm = 10 * float(np.hypot(*rgb.shape[:2])) / SENSOR_DIAGONAL_MM
    details[ExifTags.Base.FocalLengthIn35mmFilm] = focal_35mm
    focal_mm = focal_35mm / DIAGONAL_35MM * SENSOR_DIAGONAL_MM
    details[ExifTags.Base.FocalLength] = IFDRational(round(1000 * focal_mm), 1000)
    details[ExifTags.Base.FocalPlaneXResolution] = IFDRational(round(1000 * pixels_per_cm), 1000)
    details[ExifTags.Base.FocalPlaneYResolution] = IFDRational(round(1000 * pixels_per_cm), 1000)
    details[ExifTags.Base.FocalPlaneResolutionUnit] = 3  # centimetre
    people_by_photo = FIRST_PHOTO_TIME + timedelta(seconds=index)
    details[ExifTags.Base.DateTimeOriginal] = f"{people_by_photo:%Y:%m:%d %H:%M:%S}"
    if geodetic is not None:
        gps, (latitude, longitude, altitude) = exif.get_ifd(ExifTags.IFD.GPSInfo), geodetic.tolist()
        gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "NS"[latitude < 0], "EW"[longitude < 0]
        gps[ExifTags.GPS.GPSLatitude] = _sexagesimal(abs(latitude))
        gps[ExifTags.GPS.GPSLongitude] = _sexagesimal(abs(longitude))
        gps[ExifTags.GPS.GPSAltitudeRef] = b"\x01" if altitude < 0 else b"\x00"
        gps[ExifTags.GPS.GPSAltitude] = IFDRational(round(1000 * abs(altitude)), 1000)
    Image.fromarray(rgb).save(path, "JPEG", quality=92, exif=exif)


def _sexagesimal(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes and seconds; to 0.3 mm on the ground."""
    from PIL.TiffImagePlugin import IFDRational

    whole, rest = divmod(round(degrees * 3600e5), 3600 * 10**5)
    return IFDRational(whole), IFDRational(rest // (60 * 10**5)), IFDRational(rest % (60 * 10**5), 10**5)


def write_demo_transforms(
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
