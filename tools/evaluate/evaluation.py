"""Evaluation of a run: its mesh against a reference surface, its renderings against held-out photos."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from quoin.pipeline.core.config import validate_config
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.camera_files import given_cameras_path
from quoin.pipeline.scene.mesh_formats import committed_mesh
from quoin.pipeline.scene.photo_table import read_photo_names
from quoin.pipeline.scene.ply_format import read_vertex_property
from quoin.pipeline.storage.disk import write_atomic
from quoin.pipeline.storage.run import Run
from quoin.pipeline.storage.tables import write_table
from quoin.tools.evaluate.config import EvaluateConfig, EvaluateResult, ViewScore, ViewsResult


def evaluate_surface(
    run: Run,
    truth: Path,
    cameras: Path | None,
    report: Reporter,
    config: EvaluateConfig | None = None,
    views: ViewsResult | None = None,
) -> EvaluateResult:
    """Precision, recall, F, Chamfer and pose errors of a fused run against ``truth`` (a mesh or points).

    ``cameras`` are the reference cameras in the frame of ``truth``, by default those that the run was given as prior
    poses; a robust similarity aligns the run to them. Writes evaluation.json, which includes ``views``, and the tables
    evaluation (a row per distance) and evaluation_poses (a row per matched photo).
    """
    from quoin.tools.evaluate.reference_cameras import align_to_reference, read_cameras
    from quoin.tools.evaluate.reference_surface import read_face_labels, read_surface
    from quoin.tools.evaluate.surface_scores import score_confidence, score_labels, score_surface

    config = config or validate_config(EvaluateConfig, {})
    run.require("fuse")
    cameras = cameras or _given_cameras(run)
    with report.task("evaluate", 5, "steps") as advance:
        posed = posed_images.read_posed(run)
        reference = read_cameras(cameras)
        unused_names = sorted(set(read_photo_names(run)) - set(posed.names))
        truth_from_world, poses, rows = align_to_reference(
            posed.names, posed.cam_from_world, reference, unused_names=unused_names, seed=run.seed
        )
        advance(1)
        true_surface = read_surface(truth)
        advance(2)
        mesh_path = committed_mesh(run, "mesh.ply")
        mesh = read_surface(mesh_path).transformed(truth_from_world)
        advance(3)
        sampling = {"n_samples": config.n_samples, "seed": run.seed}
        surface = score_surface(mesh, true_surface, config.distances_m, **sampling)
        advance(4)
        face_labels = read_face_labels(truth, len(true_surface.faces))
        distances = [s.distance_m for s in surface.scores]
        labels = () if face_labels is None else score_labels(mesh, true_surface, face_labels, distances, **sampling)
        vertex_confidence = read_vertex_property(mesh_path, "confidence")
        confidence = (
            None
            if vertex_confidence is None
            else score_confidence(mesh, vertex_confidence, true_surface, surface, **sampling)
        )
    result = EvaluateResult(
        truth=str(truth),
        cameras=str(cameras),
        scale=truth_from_world.scale,
        rotation=truth_from_world.rotation.tolist(),
        translation=truth_from_world.translation.tolist(),
        surface=surface,
        poses=poses,
        confidence=confidence,
        labels=labels,
        views=views,
    )
    smallest = surface.scores[0].distance_m
    if surface.reference_spacing_m > smallest:
        report.log(
            "evaluate",
            f"the reference points lie {surface.reference_spacing_m:.3g} apart, so that precision at {smallest:.3g} "
            "comes out too low",
            level="warning",
        )
    write_atomic(run.path / "evaluation.json", result.model_dump_json(indent=1).encode())
    write_table(run, "evaluation", [s.model_dump() for s in surface.scores])
    write_table(run, "evaluation_poses", rows)
    report.table("evaluate", [s.model_dump() for s in surface.scores])
    return result


def evaluate_views(run: Run, report: Reporter) -> ViewsResult:
    """PSNR, SSIM and colour-corrected PSNR of the held-out photos, whose renderings are in the store.

    Writes evaluation.json, with ``views`` only, and the table evaluation_views (a row per photo).
    """
    from quoin.tools.evaluate.view_scores import score_view

    posed, scores = posed_images.read_posed(run), []
    for index in read_held_out(run).tolist():
        colour, mask = posed_images.read_rendering(run, index).color, posed_images.read_mask(run, index) > 127
        view_score = score_view(colour, posed_images.read_photo(run, index).astype(np.float32) / 255.0, mask)
        if view_score is None:
            report.log("evaluate", f"{posed.names[index]}: its mask hides all of it, so it is not compared", "warning")
            continue
        psnr, corrected, ssim = view_score
        scores.append(
            ViewScore(
                photo=posed.names[index],
                psnr_db=psnr,
                psnr_corrected_db=corrected,
                ssim=ssim,
                used_share=float(mask.mean()),
            )
        )
    if not scores:
        raise QuoinError("The masks hide all of the held-out photos", where=run.location, hint="check the masks")
    rows = [score.model_dump() for score in scores]
    mean = {name: float(np.mean([row[name] for row in rows])) for name in ("psnr_db", "psnr_corrected_db", "ssim")}
    result = ViewsResult(**mean, photos=scores)
    write_atomic(run.path / "evaluation.json", json.dumps({"views": result.model_dump()}, indent=1).encode())
    write_table(run, "evaluation_views", rows)
    report.table("evaluate/views", rows)
    return result


def _given_cameras(run: Run) -> Path:
    """The file or folder of cameras that the run was given with ``--poses``."""
    path = given_cameras_path(run)
    if path is None:
        raise QuoinError(
            "Without reference cameras the run cannot be aligned with the truth",
            where=run.location,
            hint="give them with --cameras (transforms.json, a COLMAP model, .camera files, or a CSV of name,x,y,z)",
        )
    return path
