"""The facts of the report: what report.json holds and the page shows. None means not measured."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from quoin.pipeline.core.reasons import Rejection
from quoin.stages.report.chart import Curve

REPORT_FORMAT = 2
AdviceLevel = Literal["problem", "warning", "note"]
PhotoState = Literal["placed", "not placed", "not used", "used"]  # "used": poses are not known yet


class Facts(pydantic.BaseModel):
    """Base of all parts: frozen, unknown keys refused, NaN written as null."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Headline(Facts):
    """The main numbers of the run."""

    n_photos_found: int | None  # files in the photo folder
    n_photos_used: int | None  # readable photos among them, without duplicates
    n_photos_posed: int | None
    n_points: int | None
    n_vertices: int | None  # of mesh.ply
    n_faces: int | None
    heldout_psnr_db: float | None  # mean over blocks, on pixels that are held out from training
    heldout_psnr_min_db: float | None
    total_seconds: float  # sum of all stages
    peak_memory_bytes: int | None  # largest of any process that reported


class Advice(Facts):
    """One sentence or two of advice to the user."""

    level: AdviceLevel
    text: str


class PhotoFacts(Facts):
    """One file of the photo folder."""

    name: str
    state: PhotoState
    component: int | None
    n_points: int | None
    reprojection_px: float | None
    focal_px: float | None
    width: int | None
    height: int | None
    has_mask: bool
    rejection: Rejection | None  # why it is not used or not placed
    clip: str = ""  # name of the clip that it is a frame of; "" for photos
    time_s: float | None = None  # of a frame in its clip


class ClipFacts(Facts):
    """One video that gave frames; times in seconds from its first frame."""

    name: str
    duration_s: float
    frames_per_s: float  # 0 where its header does not say
    n_frames: int  # that can be decoded
    n_taken: int
    n_placed: int | None
    n_unplaced: int | None  # taken, but without a camera pose
    blurred_s: list[tuple[float, float]]  # spans that gave no frame
    still_s: list[tuple[float, float]]  # spans that gave one frame
    unplaced_s: list[tuple[float, float]]  # spans of unplaced frames
    cut_off: str
    is_interlaced: bool = False


class StageFacts(Facts):
    """One committed stage: its time, the peak memory of its process so far, and the numbers it returned."""

    name: str
    seconds: float
    peak_memory_bytes: int | None
    numbers: dict[str, Any]


class Histogram(Facts):
    """``counts`` [n] between ``edges`` [n + 1]; values above the last edge are counted in ``n_beyond``."""

    edges: list[float]
    counts: list[int]
    n_beyond: int
    median: float
    mean: float


class PoseFacts(Facts):
    """Results of structure from motion over the posed photos."""

    reprojection_px: Histogram | None
    track_length: Histogram | None
    focal_px: Histogram | None
    n_observations: int
    components: list[int]  # photos in each group of matching photos, the reconstructed one first
    world_frame: str  # what the world frame is based on
    walls: str  # wall directions, or why there are none
    unit: str  # "m" where the scale is known, else "units"
    extent: list[float]  # size of the bulk of the points along x, y, z, in ``unit``


class BlockFacts(Facts):
    """One block of the reconstruction: its plan and the measurements of its training."""

    id: str
    low_world: list[float]
    high_world: list[float]
    halo_m: float
    n_photos: int
    planned_memory_bytes: int | None
    steps: int | None
    seconds: float | None
    rays_per_s: float | None
    heldout_psnr_db: float | None
    peak_memory_bytes: int | None
    n_bricks: int | None
    device: str | None
    compiled: bool | None = None  # whether its steps ran as compiled code
    failed: str = ""  # why it could not be trained; "" if it was, or was not tried yet
    memory_reason: str = ""  # why it was trained with less memory and detail than planned; "" if it was not


class ViewFacts(Facts):
    """A photo shown beside the mesh from the same camera."""

    number: int
    name: str
    covered_share: float  # of the picture: covered by the mesh


class MeshFacts(Facts):
    """The mesh files, and what the page draws of them."""

    ply_bytes: int | None
    glb_bytes: int | None
    drawn_file: str | None  # file that the pictures beside the photos show
    embedded_bytes: int | None  # of the glb inside the page
    embedded_faces: int | None
    n_components: int | None
    n_boundary_edges: int | None
    n_torn_edges: int | None  # boundary edges between two neighbouring bricks; 0 unless fusion failed
    largest_component_share: float | None  # of the area
    confident_share: float | None  # of the area: with a confidence above 0.5


class RoomFacts(Facts):
    """One room. Lengths are in the unit of the poses (``PoseFacts.unit``), also where names say metres."""

    area_m2: float
    length_m: float  # of its bounding box along the walls
    width_m: float
    center_world: list[float]  # x, y


class PlaneFacts(Facts):
    """A floor, ceiling or wall and the plane fitted to it."""

    what: Literal["floor", "ceiling", "wall"]
    area_m2: float
    residual_m: float  # median distance of its points from the plane
    tilt_deg: float  # from horizontal, of a wall from vertical
    length_m: float | None  # of a wall, along the ceiling


class IndoorFacts(Facts):
    """The storey that the cameras are in. Lengths are in the unit of the poses, also where names say metres."""

    height_m: float
    area_m2: float
    rooms: list[RoomFacts]
    planes: list[PlaneFacts]
    n_corners: int  # pairs of walls that meet at nearly a right angle
    corner_error_deg: float | None  # median deviation from 90°
    corner_error_max_deg: float | None


class Report(Facts):
    """The content of report.json."""

    format: int = REPORT_FORMAT
    run_id: str
    quoin_version: str
    photos_folder: str
    seed: int
    created_at: float
    headline: Headline
    advice: list[Advice]
    mesh: MeshFacts
    views: list[ViewFacts]
    pose: PoseFacts | None
    blocks: list[BlockFacts]
    curves: dict[str, list[Curve]]  # by metric; one curve per block
    photos: list[PhotoFacts]
    clips: list[ClipFacts]
    indoors: IndoorFacts | None  # where floor and ceiling enclose the cameras
    stages: list[StageFacts]
    settings: dict[str, Any]
