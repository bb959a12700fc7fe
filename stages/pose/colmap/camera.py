"""A camera as a plain record, and its projection by pycolmap.

Directions are x / z, y / z in the camera frame. Pixel (0, 0) is the corner of the first pixel.
"""

from __future__ import annotations

import copy
import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap import load_pycolmap

Array = np.ndarray


@dataclass(frozen=True)
class Camera:
    """A camera by COLMAP's name of its model and its parameters, in pixels of a ``width`` x ``height`` photo."""

    model: str
    width: int
    height: int
    params: tuple[float, ...]
    prior_focal: bool = False

    def as_json(self) -> list[Any]:
        return [self.model, self.width, self.height, list(self.params), self.prior_focal]

    @classmethod
    def from_json(cls, data: list[Any]) -> Camera:
        model, width, height, params, prior_focal = data
        return cls(model, width, height, tuple(params), prior_focal)

    @property
    def pinhole_params(self) -> Float[Array, "4"]:
        """fx, fy, cx, cy; QuoinError for a model without them."""
        camera = _to_pycolmap(self)
        return np.array(
            [camera.focal_length_x, camera.focal_length_y, camera.principal_point_x, camera.principal_point_y]
        )

    @property
    def mean_focal_px(self) -> float:
        """Mean of fx and fy."""
        return float(_to_pycolmap(self).mean_focal_length())

    def img_from_cam(self, directions: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        """Pixels of the distorted photo at which directions are seen."""
        rays = np.column_stack([directions, np.ones(len(directions))])
        return _to_pycolmap(self).img_from_cam(rays)

    def cam_from_img(self, pixels: Float[Array, "n 2"]) -> Float[Array, "n 2"]:
        """Directions of pixels of the distorted photo, to about 1e-11; NaN for a pixel that no direction is seen at."""
        return _to_pycolmap(self).cam_from_img(np.asarray(pixels, np.float64))

    def is_within_valid_radius(self, directions: Float[Array, "n 2"]) -> Bool[Array, "n"]:
        """Which directions lie where the radial curve still grows: beyond its fold a pixel shows another direction."""
        radius = np.linalg.norm(directions, axis=1)
        grid = np.linspace(0.0, max(float(radius.max(initial=0.0)), 1e-6), 512)
        distorted_px = self.img_from_cam(np.stack([grid, np.zeros_like(grid)], axis=1))[:, 0]
        falling = np.flatnonzero(~(np.diff(distorted_px) > 0))
        return radius <= (grid[falling[0]] if len(falling) else np.inf)

    def rescaled(self, width: int, height: int) -> Camera:
        """The same camera in pixels of the photo resized to ``width`` x ``height``."""
        camera = copy.copy(_to_pycolmap(self))
        camera.rescale(width, height)
        return Camera(self.model, width, height, tuple(float(p) for p in camera.params), self.prior_focal)


@functools.lru_cache(4096)  # a photo set has few cameras, and each is asked for often
def _to_pycolmap(camera: Camera) -> Any:
    """The pycolmap.Camera of a record; not to be changed."""
    pycolmap = load_pycolmap()
    models, size = pycolmap.CameraModelId.__members__, {"width": camera.width, "height": camera.height}
    made = pycolmap.Camera(model=camera.model, params=camera.params, **size) if camera.model in models else None
    if made is None or not made.focal_length_idxs():  # a panorama has none
        raise QuoinError(
            f"Camera model {camera.model} is not supported", hint="convert it to another, for example OPENCV"
        )
    if not made.verify_params():
        raise QuoinError(
            f"The camera has {len(camera.params)} parameters; {camera.model} has {made.params_info}",
            hint="repair the file that gives the camera",
        )
    return made
