"""Poses as the user gives them: only points and tracks are still to be found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.photo_table import read_photo_table
from quoin.stages.pose.cache_key import TRANSFORMS
from quoin.stages.pose.checks.registration import Gated, residuals_px
from quoin.stages.pose.colmap.camera_models import pinhole_part
from quoin.stages.pose.colmap.sparse_model import Camera, read_model
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.given_cameras import GivenPhoto, find_model, fit_to_photo, match_names, read_transforms
from quoin.stages.pose.pairing.matching import find_features, find_pairs
from quoin.stages.pose.sfm import inputs_of, no_overlap
from quoin.stages.pose.workspace import Component, Found, Photo, Workshop

Array = np.ndarray


def place(shop: Workshop, config: PoseConfig, photos: list[Photo]) -> Found:
    """Points of the photos whose cameras are given in ``config.given``; their poses are kept to the last digit."""
    others = left_out(shop)
    given = read_given(shop, Path(str(config.given)), photos, others)
    names = [photo["name"] for photo in photos]
    matched = match_names([g.name for g in given], names, others)
    if len(matched) < 2:
        example = f", for example {given[0].name!r}" if given else ""
        raise QuoinError(
            f"{len(matched)} of the {len(photos)} photos have a given camera; the names do not match{example}",
            where=config.given,
            do=f"call the photos as they are called in their folder, for example {names[0]!r}",
        )
    known = {photo: given[row] for row, photo in matched.items()}
    kept = [photo for photo in photos if photo["photo_id"] in known]
    cameras, camera_of = _cameras(known, kept)
    shop.keep_only(
        [inputs_of(kept), config.max_edge_px, config.max_features, [c.as_json() for c in cameras], shop.seed]
    )
    features, n_masks = find_features(shop, config, kept, cameras, camera_of)
    poses = np.array([known[photo["photo_id"]].cam_from_world for photo in kept])
    pairs = find_pairs(shop, config, kept, centers_world(poses))
    if not (pairs[:, 3] > 0).any():
        raise no_overlap(shop.run, features)
    ids = np.array([photo["photo_id"] for photo in kept])
    component = _triangulate(shop, dict(zip(ids.tolist(), poses, strict=True)), config)
    warnings = _doubts(component, len(photos) - len(kept))
    n_features = np.zeros(len(photos), int)
    n_features[ids] = features
    return Found([component], "given", n_features.tolist(), pairs, n_masks, 0, warnings)


def left_out(shop: Workshop) -> list[str]:
    """Names of photos that are not used; masks and depth maps are none."""
    rows = read_photo_table(shop.run)
    return [row["name"] for row in rows if not row["used"] and not row["reason"].startswith(("mask", "depth"))]


def read_given(shop: Workshop, path: Path, photos: list[Photo], others: list[str]) -> list[GivenPhoto]:
    """All cameras in a transforms.json or a COLMAP model; ``others``: names of photos that are left out."""
    if not path.exists():
        raise QuoinError(
            "The given cameras do not exist", where=path, do="name a COLMAP model folder or a transforms.json"
        )
    if path.is_dir() and (path / TRANSFORMS).is_file():
        path = path / TRANSFORMS
    if path.is_file():
        return read_transforms(path, {photo["name"]: (photo["width"], photo["height"]) for photo in photos}, others)
    folder = find_model(path)
    result = shop.colmap("reading", {"path": str(folder), "output": str(shop.folder / "given")})
    model = read_model(Path(result["component"]) / "model.npz")
    return [
        GivenPhoto(name, pose, model.cameras[camera])
        for name, pose, camera in zip(result["names"], model.cam_from_sfm, model.camera_index, strict=True)
    ]


def _cameras(known: dict[int, GivenPhoto], kept: list[Photo]) -> tuple[list[Camera], list[int]]:
    """Each different camera once."""
    cameras: list[Camera] = []
    camera_of = []
    for photo in kept:
        camera = fit_to_photo(known[photo["photo_id"]].camera, photo["name"], photo["width"], photo["height"])
        pinhole_part(camera)  # refuses a model that we cannot undistort
        if camera not in cameras:
            cameras.append(camera)
        camera_of.append(cameras.index(camera))
    return cameras, camera_of


def _triangulate(shop: Workshop, poses: dict[int, Array], config: PoseConfig) -> Component:
    with shop.report.task("pose/triangulating", 1):
        job = {"poses": {i: pose.tolist() for i, pose in poses.items()}, "output": str(shop.folder / "triangulated")}
        path = shop.colmap("triangulating", job)["component"]
    model = read_model(Path(path) / "model.npz")
    if len(model.points_sfm) < config.min_points:
        raise QuoinError(
            f"The given cameras do not explain the photos: they agree on {len(model.points_sfm)} points only",
            where=config.given,
            do="check that they belong to these photos, and which way their axes point",
        )
    # exactly as given, where COLMAP went through quaternions
    return Component(path, Gated(replace(model, cam_from_sfm=np.array([poses[i] for i in model.photo_ids])), {}))


def _doubts(component: Component, n_without: int) -> list[str]:
    model = component.gated.model
    out = []
    if n_without:
        out.append(f"{n_without} photos have no given camera and are not used")
    bare = int((model.n_observations == 0).sum())
    if bare:
        out.append(f"{bare} given poses see no point: their photos may not fit them")
    error = float(np.median(residuals_px(model)))
    if error > 2.0:
        out.append(f"Given poses fit the photos badly: points are off by {error:.1f} pixels (median)")
    return out
