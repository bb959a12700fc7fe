"""Colour of the landmark's materials at points of its surface: masonry patterns under solid noise, never repeating.

Colours are linear reflectances in [0, 1]. All noise comes from one periodic volume with a power-law spectrum (the solid
texture of Perlin 1985, made in Fourier space), read at two scales along turned axes so that no plane meets its period.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from quoin.tools.synthetic.landmark import LANDMARK_MATERIALS

Array = np.ndarray
NOISE_SIZE = 128
FINE_VOXEL_M, COARSE_VOXEL_M, BROAD_VOXEL_M = 0.014, 0.07, 0.41  # voxel of the volume at its three scales
WALL_MATERIALS = ("ashlar", "brick", "plaster")  # 44 % of the landmark's surface
NOISE_ROTATION = np.array([[0.36, 0.48, -0.8], [-0.8, 0.6, 0.0], [0.48, 0.64, 0.6]], np.float32)


class SolidNoise:
    """Fractal noise in space: mean 0, standard deviation 1, features from 2 cm to several metres."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 2])
        freq = np.fft.fftfreq(NOISE_SIZE) * NOISE_SIZE
        radius = np.sqrt(freq[:, None, None] ** 2 + freq[None, :, None] ** 2 + np.arange(NOISE_SIZE // 2 + 1) ** 2.0)
        radius[0, 0, 0] = np.inf
        spectrum = np.fft.rfftn(rng.normal(size=(NOISE_SIZE,) * 3)) / radius**1.62
        volume = np.fft.irfftn(spectrum, s=(NOISE_SIZE,) * 3, axes=(0, 1, 2))
        self.volume = (volume / volume.std()).astype(np.float32)

    def fine(self, points: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Features of 2 cm to 2 m."""
        return self._read((points @ NOISE_ROTATION.T).T / np.float32(FINE_VOXEL_M))

    def coarse(self, points: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Features of 7 cm to 9 m, smooth."""
        return self._read((points @ NOISE_ROTATION).T / np.float32(COARSE_VOXEL_M))

    def broad(self, points: Float[Array, "n 3"]) -> Float[Array, "n"]:
        """Features of 40 cm to 50 m, smooth: what is seen from the air."""
        return self._read((points[:, [2, 0, 1]] @ (NOISE_ROTATION @ NOISE_ROTATION)).T / np.float32(BROAD_VOXEL_M))

    def _read(self, at: Float[Array, "3 n"]) -> Float[Array, "n"]:
        from scipy.ndimage import map_coordinates

        return map_coordinates(self.volume, at, order=1, mode="grid-wrap")


def landmark_albedo(
    points: Float[Array, "n 3"],
    normals: Float[Array, "n 3"],
    material: Int[Array, "n"],
    noise: SolidNoise,
    *,
    textureless_walls: bool,
) -> Float[Array, "n 3"]:
    """Linear reflectance of points on surfaces of ``material`` (index into LANDMARK_MATERIALS).

    With ``textureless_walls``, WALL_MATERIALS are whitewashed.
    """
    fine, coarse = noise.fine(points), noise.coarse(points)
    out = np.empty((len(points), 3), np.float32)
    for index, name in enumerate(LANDMARK_MATERIALS):
        chosen = np.flatnonzero(material == index)
        reflectance = _whitewash if textureless_walls and name in WALL_MATERIALS else _MATERIAL_ALBEDO[name]
        if len(chosen):
            out[chosen] = reflectance(points[chosen], normals[chosen], fine[chosen], coarse[chosen])
    return np.clip(out, 0.01, 0.95)


def _mix_colors(low: tuple[float, ...], high: tuple[float, ...], share: Array) -> Array:
    share = np.clip(share, 0.0, 1.0)[:, None].astype(np.float32)
    return np.array(low, np.float32) * (1 - share) + np.array(high, np.float32) * share


def cell_random(*cells: Array) -> Array:
    """A pseudo-random number in [0, 1) for each combination of integer cells."""
    mixed = np.zeros(len(cells[0]), np.int64)
    for cell, prime in zip(cells, (73856093, 19349663, 83492791), strict=False):
        mixed ^= cell.astype(np.int64) * prime
    return ((mixed * 2654435761) % 4096 / 4096).astype(np.float32)


def _courses(points: Array, normals: Array, length: float, height: float, joint: float) -> tuple[Array, Array]:
    """Masonry in courses: a tone in [0, 1) per stone, and where its joints are (bool)."""
    facing = np.abs(normals)
    flat = facing[:, 2] > 0.8
    along = np.where(flat | (facing[:, 1] > facing[:, 0]), points[:, 0], points[:, 1])
    up = np.where(flat, points[:, 1], points[:, 2])
    row = np.floor(up / height)
    shifted = along / length + 0.5 * (row % 2)
    stone = np.floor(shifted)
    in_joint = ((up / height - row) * height < joint) | ((shifted - stone) * length < joint)
    return cell_random(row, stone, np.where(flat, 7, facing[:, 1] > facing[:, 0])), in_joint


def _pits(fine: Array) -> Array:
    """Small weathered hollows: 0 none, 1 dark."""
    return np.clip(3 * (fine - 1.1), 0, 1)


def _marble(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    veins = np.exp(-(((np.sin(2.2 * points[:, 2] + 1.3 * points[:, 0] + 2.2 * coarse + 0.35 * fine)) / 0.12) ** 2))
    rain = np.clip(0.5 * coarse - 0.25 * normals[:, 2], 0, 1)
    base = _mix_colors((0.42, 0.38, 0.31), (0.72, 0.68, 0.6), 0.55 + 0.22 * fine + 0.12 * coarse)
    return base * (1 - 0.45 * veins - 0.3 * rain - 0.4 * _pits(fine))[:, None]


def _ashlar(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    tone, joint = _courses(points, normals, 0.62, 0.31, 0.015)
    base = _mix_colors((0.24, 0.2, 0.15), (0.58, 0.5, 0.38), 0.3 + 0.4 * tone + 0.2 * fine + 0.12 * coarse)
    base = base * (1 - 0.45 * _pits(fine))[:, None]
    lichen = (coarse + 0.6 * fine > 1.7)[:, None]
    return np.where(lichen, base * np.array([0.7, 0.8, 0.45], np.float32), base) * np.where(joint, 0.5, 1.0)[:, None]


def _brick(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    tone, joint = _courses(points, normals, 0.24, 0.083, 0.012)
    base = _mix_colors((0.2, 0.07, 0.045), (0.52, 0.25, 0.16), 0.2 + 0.55 * tone + 0.18 * fine + 0.1 * coarse)
    mortar = _mix_colors((0.3, 0.29, 0.26), (0.5, 0.48, 0.43), 0.5 + 0.3 * fine)
    return np.where(joint[:, None], mortar, base)


def _plaster(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    flaked = np.clip(4 * (coarse + 0.3 * fine - 0.55), 0, 1)
    base = _mix_colors((0.5, 0.32, 0.2), (0.66, 0.45, 0.3), 0.5 + 0.22 * fine + 0.1 * coarse)
    base = base * (1 - 0.35 * _pits(-fine))[:, None]
    return base * (1 - flaked)[:, None] + _ashlar(points, normals, fine, coarse) * flaked[:, None]


def _whitewash(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    return _mix_colors((0.6, 0.58, 0.54), (0.64, 0.62, 0.58), 0.5 + 0.1 * coarse)


def _tiles(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    tone = cell_random(np.floor(points[:, 1] / 0.36), np.floor(points[:, 2] / 0.17), points[:, 0] > 0)
    base = _mix_colors((0.2, 0.07, 0.04), (0.56, 0.25, 0.14), 0.1 + 0.5 * tone + 0.2 * fine + 0.12 * coarse)
    moss = np.clip(2.5 * (coarse + 0.3 * fine - 0.9), 0, 0.8)[:, None]
    return base * (1 - moss) + np.array([0.16, 0.2, 0.08], np.float32) * moss


def _bronze(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    patina = np.clip(0.5 + 0.4 * coarse + 0.45 * fine + 0.2 * normals[:, 2], 0, 1)
    return _mix_colors((0.11, 0.075, 0.045), (0.3, 0.42, 0.34), patina) * (1 + 0.2 * fine)[:, None]


def _leaves(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    clump = 0.5 + 0.25 * coarse + 0.55 * np.tanh(1.1 * fine)
    return _mix_colors((0.03, 0.055, 0.02), (0.26, 0.36, 0.1), clump) + _mix_colors(
        (0, 0, 0), (0.12, 0.09, 0.02), coarse - 1.2
    )


def _bark(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    return _mix_colors((0.08, 0.055, 0.04), (0.3, 0.23, 0.17), 0.45 + 0.25 * fine + 0.15 * coarse)


def _ground(points: Array, normals: Array, fine: Array, coarse: Array) -> Array:
    grass = _mix_colors((0.06, 0.09, 0.03), (0.3, 0.36, 0.13), 0.45 + 0.2 * fine + 0.2 * coarse)
    worn = np.clip(2 * (coarse + 0.35 * fine - 1.1), 0, 1)[:, None]
    grass = grass * (1 - worn) + _mix_colors((0.22, 0.17, 0.11), (0.42, 0.35, 0.25), 0.5 + 0.3 * fine) * worn
    gravel = _mix_colors((0.26, 0.23, 0.18), (0.6, 0.55, 0.46), 0.45 + 0.25 * fine + 0.12 * coarse)
    paved, joint = _courses(points, np.broadcast_to([0.0, 0.0, 1.0], points.shape), 0.55, 0.42, 0.02)
    slabs = _mix_colors((0.25, 0.23, 0.2), (0.55, 0.52, 0.47), 0.25 + 0.4 * paved + 0.2 * fine + 0.1 * coarse)
    slabs = np.where(joint[:, None], grass * 0.8, slabs)
    around = np.maximum(np.abs(points[:, 0]) - 4.3, np.abs(points[:, 1]) - 5.0) + 0.06 * coarse < 0
    path = np.abs(points[:, 0]) + 0.03 * fine < 1.4
    return np.where(path[:, None], slabs, np.where(around[:, None], gravel, grass))


_MATERIAL_ALBEDO = {
    "marble": _marble,
    "ashlar": _ashlar,
    "tiles": _tiles,
    "bronze": _bronze,
    "leaves": _leaves,
    "bark": _bark,
    "ground": _ground,
    "brick": _brick,
    "plaster": _plaster,
}
