"""Viewer of a run in the browser: cameras with their photos, points, and the mesh. Serves this machine only."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from jaxtyping import Float

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.cameras import centers_world
from quoin.pipeline.scene.mesh_formats import GltfMesh, committed_mesh, confidence_colors, decode_glb
from quoin.pipeline.scene.posed_images import PYRAMID_LEVELS, Posed, read_photo, read_posed
from quoin.pipeline.storage.run import Run

Array = np.ndarray

VIEWER_HOST = "127.0.0.1"
MAX_DRAWN_POINTS = 500_000  # that a browser draws smoothly; of more, a random choice is drawn
MAX_THUMBNAILS = 300  # cameras drawn with their photo, evenly chosen
Z_UP_FROM_Y_UP_WXYZ = (math.sqrt(0.5), math.sqrt(0.5), 0.0, 0.0)  # quaternion wxyz: glTF is y up, the world z up


def serve_viewer(run: Run, port: int = 0) -> Any:
    """The running ``viser.ViserServer`` with the run's scene; the caller stops it."""
    try:
        import viser
    except ImportError:
        raise QuoinError("The viewer needs viser", hint='run: pip install "viser>=1.0"') from None
    if run.manifest("pose") is None:
        raise QuoinError(
            "There is nothing to view yet: no photo has a pose", where=run.location, hint="run quoin resume"
        )
    posed = read_posed(run)
    glb = committed_mesh(run, "mesh.glb").read_bytes() if run.manifest("fuse") is not None else None
    server = viser.ViserServer(
        host=VIEWER_HOST, port=port, label=f"quoin: {run.record.photos.rpartition('/')[2]}", verbose=False
    )
    server.request_share_url = _refuse_share_url  # type: ignore[method-assign]  # the page has a button for a public tunnel
    server.gui.configure_theme(show_logo=False, show_share_button=False)
    cameras = _add_cameras(server, run, posed)
    points = _add_points(server, posed)
    surface = confidence = None
    if glb is not None:
        surface = server.scene.add_glb("/mesh", glb, wxyz=Z_UP_FROM_Y_UP_WXYZ)
        confidence = _add_confidence(server, decode_glb(glb))
    _add_checkboxes(server, cameras, points, surface, confidence)
    _set_initial_camera(server, posed)
    return server


def _refuse_share_url(verbose: bool = True) -> None:
    """In place of viser's public share link: a run is shown on this machine only."""


def camera_spacing(centers: Float[Array, "n 3"]) -> float:
    """Median distance from a camera to its nearest neighbour; 1 where there is only one place."""
    from scipy.spatial import cKDTree

    if len(centers) < 2:
        return 1.0
    return float(np.median(cKDTree(centers).query(centers, k=2)[0][:, 1])) or 1.0


def _add_cameras(server: Any, run: Run, posed: Posed) -> list[Any]:
    import viser.transforms

    centers = centers_world(posed.cam_from_world)
    with_thumbnail = set(np.linspace(0, len(posed) - 1, min(len(posed), MAX_THUMBNAILS)).round().astype(int).tolist())
    frusta = []
    for i, name in enumerate(posed.names):
        width, height = (float(v) for v in posed.sizes[i])
        frustum = server.scene.add_camera_frustum(
            f"/cameras/{i:06d}",
            fov=2 * math.atan(0.5 * height / float(posed.intrinsics[i, 1])),
            aspect=width / height,
            scale=0.3 * camera_spacing(centers),
            color=(164, 82, 30),
            image=read_photo(run, i, PYRAMID_LEVELS - 1) if i in with_thumbnail else None,
            wxyz=viser.transforms.SO3.from_matrix(posed.cam_from_world[i, :, :3].T).wxyz,
            position=centers[i],
        )
        frustum.on_click(_camera_click_handler(centers[i], posed.cam_from_world[i], name))
        frusta.append(frustum)
    return frusta


def _camera_click_handler(center: Float[Array, "3"], cam_from_world: Float[Array, "3 4"], name: str) -> Any:
    """The action of a click on a camera: move the view there, and show the name of its photo."""

    def move_to_camera(event: Any) -> None:
        reach = float(np.linalg.norm(event.client.camera.look_at - center)) or 1.0
        event.client.camera.position = center
        event.client.camera.look_at = center + reach * cam_from_world[2, :3]
        event.client.add_notification(title="Photo", body=name, auto_close_seconds=4.0)

    return move_to_camera


def _add_points(server: Any, posed: Posed) -> Any:
    pick = np.arange(len(posed.points_world))
    if len(pick) > MAX_DRAWN_POINTS:
        pick = np.random.default_rng(0).choice(len(pick), MAX_DRAWN_POINTS, replace=False)
    points = posed.points_world[pick]
    size = (
        0.002 * float(np.linalg.norm(np.ptp(np.percentile(points, [2, 98], axis=0), axis=0))) if len(points) else 0.01
    )
    return server.scene.add_point_cloud(
        "/points", points.astype(np.float32), posed.point_colors[pick], point_size=size, precision="float32"
    )


def _add_confidence(server: Any, mesh: GltfMesh) -> Any:
    """The mesh in the colours of its confidence; None where it has none."""
    import trimesh

    if "confidence" not in mesh.values:
        return None
    colors = np.rint(confidence_colors(mesh.values["confidence"])).astype(np.uint8)
    colored = trimesh.Trimesh(mesh.vertices_world, mesh.faces, vertex_colors=colors, process=False)
    return server.scene.add_mesh_trimesh("/confidence", colored)


def _add_checkboxes(server: Any, cameras: list[Any], points: Any, surface: Any, confidence: Any) -> None:
    rows = {"Mesh": [surface], "Confidence": [confidence], "Points": [points], "Cameras": cameras}
    boxes = {}
    for label, nodes in rows.items():
        if not nodes or nodes[0] is None:
            continue
        is_visible = label not in ("Confidence", "Points") or (label == "Points" and not surface)
        boxes[label] = box = server.gui.add_checkbox(label, initial_value=is_visible)
        box.on_update(_visibility_handler(box, nodes))
        _visibility_handler(box, nodes)(None)
    if "Confidence" in boxes:  # it hides the mesh, so only one of them is visible
        boxes["Confidence"].on_update(lambda _: setattr(boxes["Mesh"], "value", not boxes["Confidence"].value))
    size = points.point_size
    slider = server.gui.add_slider("Point size", min=0.2, max=5.0, step=0.1, initial_value=1.0)
    slider.on_update(lambda _: setattr(points, "point_size", size * slider.value))


def _visibility_handler(box: Any, nodes: list[Any]) -> Any:
    def set_visible(_: Any) -> None:
        for node in nodes:
            node.visible = box.value

    return set_visible


def _set_initial_camera(server: Any, posed: Posed) -> None:
    """Start behind and above the first camera, looking at the middle of the scene."""
    center = centers_world(posed.cam_from_world)[0]
    middle = (
        np.median(posed.points_world, axis=0) if len(posed.points_world) else center + posed.cam_from_world[0, 2, :3]
    )
    back = center - middle
    server.initial_camera.position = middle + 1.2 * back + np.array([0, 0, 0.3 * np.linalg.norm(back)])
    server.initial_camera.look_at = middle
    server.initial_camera.up = (0.0, 0.0, 1.0)
