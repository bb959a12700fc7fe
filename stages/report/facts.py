"""Every number of the report, typed: what report.json holds and what the page shows. None means not measured."""

from __future__ import annotations

from typing import Any, Literal

import pydantic

from quoin.pipeline.core.reasons import Rejection
from quoin.stages.report.chart import Curve

REPORT_FORMAT = 1
AdviceLevel = Literal["problem", "warning", "note"]


class Facts(pydantic.BaseModel):
    """Base of all parts: frozen, unknown keys refused, NaN written as null."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="null")


class Headline(Facts):
    """The numbers a person asks for first."""

    n_photos_found: int | None  # files seen in the photo folder
    n_photos_used: int | None  # of them readable photos, duplicates left out
    n_photos_posed: int | None
    n_points: int | None
    n_vertices: int | None  # of mesh.ply
    n_faces: int | None
    heldout_psnr_db: float | None  # mean over blocks, on pixels whose colours training never aimed at
    heldout_psnr_lowest_db: float | None
    total_seconds: float  # sum of all stages
    peak_memory_bytes: int | None  # largest of any process that reported


class Advice(Facts):
    """One thing a person should know, worst first."""

    level: AdviceLevel
    text: str


class PhotoFacts(Facts):
    """One file of the photo folder."""

    name: str
    state: Literal["placed", "not placed", "not used", "used"]  # "used": poses are not known
    component: int | None
    n_points: int | None
    reprojection_px: float | None
    focal_px: float | None
    width: int | None
    height: int | None
    has_mask: bool
    rejection: Rejection | None  # why it is not used or not placed
    clip: str = ""  # that it is a frame of; "" for photos
    time_s: float | None = None  # of a frame in its clip


class ClipFacts(Facts):
    """One video that gave frames; times in seconds from its first."""

    name: str
    seconds: float
    frames_per_s: float  # 0 where its header does not say
    n_frames: int  # that can be decoded
    n_taken: int
    n_placed: int | None
    n_unplaced: int | None  # taken, but pose could not place them
    blurred_s: list[tuple[float, float]]  # gave none
    still_s: list[tuple[float, float]]  # gave one
    unplaced_s: list[tuple[float, float]]  # where the unplaced ones lie
    cut_off: str


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
    """What structure from motion left over the posed photos."""

    reprojection_px: Histogram | None
    track_length: Histogram | None
    focal_px: Histogram | None
    n_observations: int
    components: list[int]  # photos in each group that connects, the one in use first
    world_frame: str  # where the world frame comes from
    walls: str  # in which directions walls stand, or why none are known
    unit: str  # "m" where the scale is known, else "units"
    extent: list[float]  # size of the bulk of the points along x, y, z, in ``unit``


class BlockFacts(Facts):
    """One block of the reconstruction: what was planned and what training measured."""

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
    failed: str = ""  # why it could not be trained; "" where it was, or was not tried
    memory_reason: str = ""  # why it was trained with less memory than planned, and so less fine; "" where it was not


class ViewFacts(Facts):
    """A photo shown beside the mesh from the same camera."""

    number: int
    name: str
    covered_share: float  # of the picture that the mesh fills


class MeshFacts(Facts):
    """The files of the surface, and what the page draws of them."""

    ply_bytes: int | None
    glb_bytes: int | None
    drawn_file: str | None  # which file the pictures beside the photos show
    embedded_bytes: int | None  # of the glb inside the page
    embedded_faces: int | None
    n_components: int | None
    n_boundary_edges: int | None
    n_torn_edges: int | None  # boundary edges left between two known bricks; 0 where fusion is exact
    largest_component_share: float | None  # of the area
    confident_share: float | None  # of the area: where confidence is above 0.5


class RoomFacts(Facts):
    """One room: the piece of ceiling that walls enclose. Lengths in the unit of the poses, whatever the names say."""

    area_m2: float
    length_m: float  # of its box square to the walls
    width_m: float
    middle_world: list[float]  # x, y


class PlaneFacts(Facts):
    """A floor, ceiling or wall: its area, how far the middle one of its points is off the plane fitted to all."""

    what: Literal["floor", "ceiling", "wall"]
    area_m2: float
    off_m: float
    tilt_deg: float  # from level, or a wall's from upright
    length_m: float | None  # of a wall, along the ceiling


class IndoorFacts(Facts):
    """The storey that the cameras stand in. Lengths in the unit of the poses, whatever the names say."""

    height_m: float
    area_m2: float
    rooms: list[RoomFacts]
    planes: list[PlaneFacts]
    n_corners: int  # pairs of walls that meet at nearly a right angle
    corner_off_deg: float | None  # from 90°, in the median
    corner_off_most_deg: float | None


class Report(Facts):
    """The content of report.json."""

    format: int = REPORT_FORMAT
    run_id: str
    quoin: str
    photos_folder: str
    seed: int
    created_at: float
    headline: Headline
    advice: list[Advice]
    mesh: MeshFacts
    views: list[ViewFacts]
    pose: PoseFacts | None
    blocks: list[BlockFacts]
    curves: dict[str, list[Curve]]  # by what was measured; one curve a block
    photos: list[PhotoFacts]
    clips: list[ClipFacts]
    indoors: IndoorFacts | None  # where floor and ceiling enclose the cameras
    stages: list[StageFacts]
    settings: dict[str, Any]
