"""``python -m benchmarks.sky RUN``: the sky a run found in the photos of the demo, against the true one.

The run: ``quoin reconstruct --poses truth/transforms.json`` of the photos of ``quoin demo``. True is what no triangle
of the demo covers, with its garden and the trees around it. Passers-by are not in the truth.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from quoin.pipeline.geometry.cameras import pixel_grid, rays_world
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.pipeline.storage.run import Run


def measure_sky(run: Run, seed: int) -> str:
    """Precision and recall over the pixels of all photos, and those photos where either is poor."""
    from quoin.tools.synthetic.landmark import build_landmark
    from quoin.tools.synthetic.photo_renderer import build_raycaster

    landmark_scene, posed = build_landmark(seed), posed_images.read_posed(run)
    caster, n_predicted, n_true, n_correct, poor_photos = (
        build_raycaster(landmark_scene.vertices, landmark_scene.faces),
        0,
        0,
        0,
        [],
    )
    for index, (width, height) in enumerate(posed.sizes.tolist()):
        origin, directions = rays_world(posed.cam_from_world[index], posed.intrinsics[index], pixel_grid(width, height))
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
        empty = ~np.isfinite(caster.cast_rays(rays)["t_hit"].numpy())
        sky = (priors.read_full_size_labels(run, index, posed.sizes[index]) == labels.SKY).ravel()
        n_right = int((sky & empty).sum())
        n_predicted, n_true, n_correct = n_predicted + int(sky.sum()), n_true + int(empty.sum()), n_correct + n_right
        if n_right < 0.97 * sky.sum() or n_right < 0.6 * empty.sum():
            poor_photos.append(
                f"{posed.names[index]} ({empty.mean():.1%} sky: {n_right / max(empty.sum(), 1):.0%} found)"
            )
    precision, recall = n_correct / max(n_predicted, 1), n_correct / max(n_true, 1)
    return f"precision {precision:.4f}, recall {recall:.4f}; poor: {', '.join(poor_photos) or 'none'}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    print(measure_sky(Run.open(args.run), args.seed))
