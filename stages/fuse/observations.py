"""Observations of the vertices of a mesh by photos: visibility, stereo votes, colors, and planes to snap to."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Float, Int

from quoin.pipeline.geometry.cameras import frustum_query
from quoin.pipeline.imaging import labels
from quoin.pipeline.imaging.filters import sample_bilinear, sample_nearest
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.scene.blocks import read_held_out
from quoin.pipeline.scene.priors import depth_from_planes, read_plane_index, read_scene_planes
from quoin.pipeline.storage.run import Run
from quoin.stages.fuse.config import FuseConfig
from quoin.stages.fuse.mesh import Mesh
from quoin.stages.fuse.vertex_attributes import ColorSamples, ViewDirections, depth_votes, directions_to
from quoin.stages.fuse.visibility import (
    LocalView,
    ViewMaps,
    VisibleVertices,
    make_local_view,
    split_sky,
    visible_vertices,
)

Array = np.ndarray
MappedT = TypeVar("MappedT")

MIN_VOTE_LEAD = 2  # photos that show the plane, more than show others
MAX_SNAP_ANGLE_DEG = 45.0  # between the normals of plane and vertex: a trained surface ripples where it is flat


@dataclass(frozen=True)
class Observations:
    """Observations of the vertices of a mesh, summed over photos."""

    rays: ViewDirections  # towards the photos that see a vertex
    sky: Int[Array, "v"]  # photos that show sky in a vertex's place
    votes: Int[Array, "v"]  # photos whose depth map confirms a vertex, minus those that see through it
    no_depth: Int[Array, "v"]  # photos that see a vertex, and whose depth map does not vote on it
    samples: ColorSamples
    plane_votes: PlaneVotes

    @classmethod
    def empty(cls, n_vertices: int, n_samples: int) -> Observations:
        sky, votes, no_depth = np.zeros((3, n_vertices), np.int32)
        samples = ColorSamples.empty(n_vertices, n_samples)
        return cls(ViewDirections.empty(n_vertices), sky, votes, no_depth, samples, PlaneVotes.empty(n_vertices))


class PhotoObserver:
    """Photos that observe vertices, in one local frame with origin ``middle_world``; held-out photos are left out."""

    def __init__(self, run: Run, config: FuseConfig, middle_world: Float[Array, "3"], voxel_size_m: float) -> None:
        self.run, self.config, self.middle_world, self.voxel_size_m = run, config, middle_world, voxel_size_m
        self.posed, self.planes = posed_images.read_posed(run), read_scene_planes(run)
        self.photos = np.setdiff1d(np.arange(len(self.posed)), read_held_out(run)).tolist()
        self.views = [self._view(i) for i in self.photos]
        self.has_stereo = any(priors.has_depth(run, i) for i in self.photos)

    def _view(self, i: int) -> LocalView:
        posed = self.posed
        size, edge_px = posed.sizes[i], self.config.depth_edge_px
        return make_local_view(posed.cam_from_world[i], posed.intrinsics[i], size, edge_px, self.middle_world)

    def local(self, vertices_world: Float[Array, "v 3"]) -> Float[Array, "v 3"]:
        """Vertices in the frame of the views, float32."""
        return (vertices_world - self.middle_world).astype(np.float32)

    def observe(
        self,
        vertices_world: Float[Array, "v 3"],
        normals: Float[Array, "v 3"],
        read_occlusion: Callable[[int], Float[Array, "h w"]],
        tolerance_m: float,
        advance: Callable[[], object],
    ) -> Observations:
        """Observations by all photos; vertices behind the depth map ``read_occlusion(view)`` are not visible.

        A color sample's weight grows with the cosine to the normal and falls with the distance. ``advance`` is called
        after every photo.
        """
        local = self.local(vertices_world)
        out, may_see = Observations.empty(len(local), self.config.color_samples), frustum_query(local)

        def observe_photo(number: int) -> _PhotoObservation | None:
            view = self.views[number]
            candidates = may_see(view.cam_from_local, view.intrinsics, (view.width, view.height))
            return (
                self._observe(number, read_occlusion(number), local, normals, tolerance_m, candidates)
                if len(candidates)
                else None
            )

        for number, observed in enumerate(map_ordered(observe_photo, range(len(self.views)))):
            if observed is not None:
                vertex = observed.visible_vertices.vertex
                out.rays.add(vertex, directions_to(self.views[number].center, local[vertex]))
                out.sky[observed.sky_vertices] += 1
                out.votes[observed.sky_vertices] -= 1
                out.votes[vertex] += observed.depth_vote
                out.no_depth[vertex] += observed.no_depth
                out.plane_votes.add(observed.plane_vertices, observed.plane)
                out.samples.add(self.photos[number], vertex, observed.rgb, observed.weight)
            advance()
        return out

    def _observe(
        self,
        number: int,
        occlusion: Float[Array, "h w"],
        local: Float[Array, "v 3"],
        normals: Float[Array, "v 3"],
        tolerance_m: float,
        candidates: Int[Array, "n"],
    ) -> _PhotoObservation:
        i, run, posed = self.photos[number], self.run, self.posed
        pixel_labels = priors.read_full_size_labels(run, i, posed.sizes[i])
        mask = np.where(pixel_labels == labels.TRANSIENT, 0, posed_images.read_mask(run, i))
        visible = visible_vertices(
            ViewMaps(self.views[number], occlusion, None if (mask > 127).all() else mask),
            local,
            normals,
            tolerance=tolerance_m,
            min_cosine=self.config.min_cosine,
            candidates=candidates,
        )
        visible, sky_vertices = split_sky(visible, pixel_labels)
        depth_vote, no_depth = np.zeros((2, len(visible.vertex)), np.int32)
        plane_vertices = plane = visible.vertex[:0]
        if (stored := priors.read_depth(run, i)) is not None:
            depth_vote = depth_votes(visible, stored[0], tolerance_m, priors.read_depth_sigma(run, i))
            if (plane_map := read_plane_index(run, i)) is not None:  # planes confirm, but never vote against
                intrinsics = posed.intrinsics[i] / 2**plane_map.level
                depth = depth_from_planes(plane_map.plane_index, self.planes, posed.cam_from_world[i], intrinsics)
                on_plane = (depth_vote == 0) & (depth_votes(visible, depth, tolerance_m) > 0)
                depth_vote[on_plane] = 1
                plane_vertices, plane = (
                    visible.vertex[on_plane],
                    sample_nearest(plane_map.plane_index, visible.uv[on_plane]),
                )
            no_depth = (depth_vote == 0).astype(np.int32)
        footprint = visible.depth / posed.intrinsics[i, :2].mean() / self.voxel_size_m  # voxels in a level-0 pixel
        finer = np.log2(1 / max(float(np.median(footprint)), 1e-6)) if len(footprint) else 0.0
        level = int(np.clip(np.floor(finer + 0.25), 0, posed_images.PYRAMID_LEVELS - 1))
        rgb = sample_bilinear(posed_images.read_photo(run, i, level), visible.uv)
        weight = (visible.cosine / np.sqrt(footprint)).astype(np.float32)
        return _PhotoObservation(visible, sky_vertices, depth_vote, no_depth, plane_vertices, plane, rgb, weight)


@dataclass(frozen=True)
class _PhotoObservation:
    """Observation by one photo: visible vertices with votes, colors, weights; vertices on sky; planes of vertices."""

    visible_vertices: VisibleVertices
    sky_vertices: Array
    depth_vote: Array
    no_depth: Array
    plane_vertices: Array
    plane: Array
    rgb: Array
    weight: Array


def map_ordered(work: Callable[[int], MappedT], items: Iterable[int]) -> Iterator[MappedT]:
    """Results of ``work`` in the order of ``items``, computed by a few threads that run only a little ahead."""
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        ahead: deque[Future[MappedT]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


# -- planes of textureless surfaces ------------------------------------------------------------------------------------


@dataclass
class PlaneVotes:
    """Majority plane of the photos of every vertex, and a lower bound of its lead over all others.

    Photos are added one at a time (Boyer and Moore 1981): a plane that more than half of them show is found.
    """

    plane_index: Int[Array, "v"]
    lead: Int[Array, "v"]

    @classmethod
    def empty(cls, n_vertices: int) -> PlaneVotes:
        return cls(np.full(n_vertices, -1, np.int32), np.zeros(n_vertices, np.int32))

    def add(self, vertex: Int[Array, "n"], plane_index: Int[Array, "n"]) -> None:
        """Add a photo: vertices, and the index of the plane it shows at each."""
        same = self.plane_index[vertex] == plane_index
        lead = self.lead[vertex] + np.where(same, 1, -1)
        self.plane_index[vertex] = np.where(lead < 0, plane_index, self.plane_index[vertex])
        self.lead[vertex] = np.abs(lead)


def snap_to_planes(
    mesh: Mesh, votes: PlaneVotes, planes_world: Float[Array, "k 4"], normals: Float[Array, "v 3"], tolerance_m: float
) -> Mesh:
    """The mesh with vertices moved along the normal onto the plane that their photos show.

    Only vertices within ``tolerance_m`` of the plane, and with a similar normal, are moved. Rows of ``planes_world``
    are (n, offset) with n · x = offset.
    """
    voted = np.flatnonzero(votes.lead >= MIN_VOTE_LEAD)
    plane = planes_world[votes.plane_index[voted]]
    signed_distance = np.einsum("ij,ij->i", mesh.vertices_world[voted], plane[:, :3]) - plane[:, 3]
    facing = np.einsum("ij,ij->i", normals[voted], plane[:, :3]) > np.cos(np.radians(MAX_SNAP_ANGLE_DEG))
    near = facing & (np.abs(signed_distance) < tolerance_m)
    vertices = mesh.vertices_world.copy()
    vertices[voted[near]] -= signed_distance[near, None] * plane[near, :3]
    return replace(mesh, vertices_world=vertices)
