"""Generate a photo collection of the landmark, the room or the town, with its true cameras and true surface."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.geometry.cameras import centers_world
from quoin.tools.synthetic.config import SyntheticConfig, SyntheticTruth

if TYPE_CHECKING:
    from PIL.TiffImagePlugin import IFDRational

    from quoin.tools.synthetic.photo_renderer import Solid
    from quoin.tools.synthetic.photo_shoot import PhotoShoot

Array = np.ndarray

FOCAL_35MM = {"landmark": 33, "room": 25, "town": 33}  # as EXIF writes it: in mm, for a diagonal as of 36 x 24 mm
DIAGONAL_35MM = 43.2666
FIRST_PHOTO_TIME = datetime(2024, 6, 21, 10)  # the other photos follow a second apart
SENSOR_DIAGONAL_MM = 21.6333  # of a four-thirds sensor, for the focal length in EXIF


def lens_focal_px(config: SyntheticConfig) -> float:
    """Focal length of the scene's lens for photos of this size."""
    return FOCAL_35MM[config.scene] / DIAGONAL_35MM * float(np.hypot(config.width, config.height))


def generate_photos(folder: Path, config: SyntheticConfig, seed: int, report: Reporter) -> SyntheticTruth:
    """Write ``photos/*.jpg`` and ``truth/`` (mesh.ply, full.ply, transforms.json, masks, demo.json) into ``folder``.

    The same seed and settings give the same photos. Exposure and tint change from photo to photo. In front of the
    landmark people stand in about a third of the photos, or in all where a crowd is asked for. The room's meshes carry
    a label of each face (pipeline/imaging/labels.py). Returns the content of demo.json.
    """
    from quoin.tools.synthetic.photo_renderer import covered_share, people_mask, visible_faces
    from quoin.tools.synthetic.photo_shoot import shoot_scene

    folder = folder.absolute()  # demo.json is read from anywhere
    photos, truth = folder / "photos", folder / "truth"
    photos.mkdir(parents=True, exist_ok=True)
    truth.mkdir(parents=True, exist_ok=True)
    size, focal = (config.width, config.height), lens_focal_px(config)
    intrinsics = np.array([focal, focal, config.width / 2, config.height / 2])
    shoot = shoot_scene(config, intrinsics, seed)
    scene, poses = shoot.scene, shoot.cam_from_world
    files = photo_files(photos, len(poses))
    people = _take_photos(files, shoot, intrinsics, config, seed, report)

    shares = [0.0] * len(poses)
    for index, group in people.items():
        shares[index] = covered_share(group, poses[index], intrinsics, size)
        mask = people_mask(group, shoot.solid, poses[index], intrinsics, size)
        save_mask(truth / "masks" / f"{files[index].stem}.png", mask)

    region_faces = scene.faces[scene.is_in_region]
    triangles = scene.vertices[region_faces]
    # A crowd hides part of the surface for good; the few people of other photos hide next to nothing.
    crowds = [people[i].scene if i in people else None for i in range(len(poses))] if config.crowd else None
    is_visible = visible_faces(shoot.solid.scene, triangles, poses, intrinsics, size, occluders=crowds)
    labels = None if scene.label is None else scene.label[scene.is_in_region]
    visible_labels = None if labels is None else labels[is_visible]
    write_mesh(truth / "full.ply", scene.vertices, region_faces, labels)
    write_mesh(truth / "mesh.ply", scene.vertices, region_faces[is_visible], visible_labels)
    write_true_cameras(truth / "transforms.json", [file.name for file in files], poses, intrinsics, size)
    record = SyntheticTruth(
        photos=str(photos),
        mesh=str(truth / "mesh.ply"),
        full_mesh=str(truth / "full.ply"),
        cameras=str(truth / "transforms.json"),
        masks=str(truth / "masks") if people else None,
        diagonal_m=float(np.linalg.norm(np.ptp(triangles[is_visible].reshape(-1, 3), axis=0))),
        region_low_m=scene.region_low_m,
        region_high_m=scene.region_high_m,
        focal_px=focal,
        n_photos=len(poses),
        n_photos_with_people=len(people),
        people_share=sum(shares) / len(shares),
        wall_yaws_deg=scene.wall_yaws_deg,
        seed=seed,
    )
    (truth / "demo.json").write_text(record.model_dump_json(indent=1), encoding="utf-8")
    return record


def photo_files(folder: Path, count: int) -> list[Path]:
    """Paths of ``count`` photos, numbered with as many digits as the last one needs."""
    digits = max(3, len(str(count - 1)))
    return [folder / f"demo_{index:0{digits}d}.jpg" for index in range(count)]


def _take_photos(
    files: Sequence[Path],
    shoot: PhotoShoot,
    intrinsics: Float[Array, "4"],
    config: SyntheticConfig,
    seed: int,
    report: Reporter,
) -> dict[int, Solid]:
    """Render and save every photo; returns the people in each photo that has some, by its index."""
    from quoin.tools.synthetic.photo_renderer import PhotoDevelopment, render_photo

    size = (config.width, config.height)

    def take_photo(index: int) -> Solid | None:
        rng = np.random.default_rng([seed, 4, index])
        gain = rng.uniform(*config.exposure) * (1 + rng.uniform(-config.tint, config.tint, 3))
        people = shoot.people_in(index, rng)
        gamma = float(np.exp(np.log(config.gamma) * rng.uniform(-1, 1)))
        noise = rng.normal(0, config.noise_std, (config.height, config.width, 3)) if config.noise_std else None
        development = PhotoDevelopment(gain, gamma, noise)
        pose, radiance = shoot.cam_from_world[index], shoot.radiance_function(people)
        rgb = render_photo(radiance, pose, intrinsics, size, development, shoot.samples)
        position = None if shoot.geodetic is None else shoot.geodetic[index]
        save_photo(files[index], rgb, FOCAL_35MM[config.scene], index, position)
        return people

    people_by_photo: dict[int, Solid] = {}
    with report.task("demo", len(files), "photos") as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        for index, people in enumerate(pool.map(take_photo, range(len(files)))):
            if people is not None:
                people_by_photo[index] = people
            advance(index + 1)
    return people_by_photo


def save_mask(path: Path, hidden: Bool[Array, "h w"]) -> None:
    """Write a mask as ``--masks`` reads it: black where the photo shows people, white elsewhere."""
    from PIL import Image

    path.parent.mkdir(exist_ok=True)
    Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)).save(path)


def save_photo(
    path: Path, rgb: UInt8[Array, "h w 3"], focal_35mm: int, index: int, geodetic: Float[Array, "3"] | None = None
) -> None:
    """Write a JPEG with a camera's EXIF: make, model, time, the focal length in three ways that agree, GPS position."""
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
    taken_at = FIRST_PHOTO_TIME + timedelta(seconds=index)
    details[ExifTags.Base.DateTimeOriginal] = f"{taken_at:%Y:%m:%d %H:%M:%S}"
    if geodetic is not None:
        gps, (latitude, longitude, altitude) = exif.get_ifd(ExifTags.IFD.GPSInfo), geodetic.tolist()
        gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLongitudeRef] = "NS"[latitude < 0], "EW"[longitude < 0]
        gps[ExifTags.GPS.GPSLatitude] = _sexagesimal(abs(latitude))
        gps[ExifTags.GPS.GPSLongitude] = _sexagesimal(abs(longitude))
        gps[ExifTags.GPS.GPSAltitudeRef] = b"\x01" if altitude < 0 else b"\x00"
        gps[ExifTags.GPS.GPSAltitude] = IFDRational(round(1000 * abs(altitude)), 1000)
    Image.fromarray(rgb).save(path, "JPEG", quality=92, exif=exif)


def _sexagesimal(degrees: float) -> tuple[IFDRational, IFDRational, IFDRational]:
    """Degrees, minutes and seconds, exact to 0.3 mm on the ground."""
    from PIL.TiffImagePlugin import IFDRational

    whole, rest = divmod(round(degrees * 3600e5), 3600 * 10**5)
    return IFDRational(whole), IFDRational(rest // (60 * 10**5)), IFDRational(rest % (60 * 10**5), 10**5)


def write_true_cameras(
    path: Path,
    names: list[str],
    cam_from_world: Float[Array, "n 3 4"],
    intrinsics: Float[Array, "4"],
    size: tuple[int, int],
) -> None:
    """Write nerfstudio's transforms.json: camera-to-world, camera axes x right, y up, z backwards; no distortion."""
    frames = []
    for name, pose, center in zip(names, cam_from_world, centers_world(cam_from_world), strict=True):
        world_from_cam = np.eye(4)
        world_from_cam[:3, :3] = pose[:, :3].T @ np.diag([1.0, -1.0, -1.0])
        world_from_cam[:3, 3] = center
        frames.append({"file_path": f"../photos/{name}", "transform_matrix": world_from_cam.tolist()})
    fx, fy, cx, cy = map(float, intrinsics)
    head = {"camera_model": "PINHOLE", "fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": size[0], "h": size[1]}
    path.write_text(json.dumps({**head, "frames": frames}, indent=1), encoding="utf-8")


def write_mesh(
    path: Path, vertices: Float[Array, "v 3"], faces: Int[Array, "f 3"], labels: Int[Array, "f"] | None = None
) -> None:
    """A binary PLY of the faces and the vertices they use; ``labels`` as their property ``label`` (uchar)."""
    import trimesh

    used, index = np.unique(faces, return_inverse=True)
    mesh = trimesh.Trimesh(vertices[used], index.reshape(-1, 3), process=False)
    if labels is not None:
        mesh.face_attributes["label"] = labels.astype(np.uint8)
    mesh.export(path)
