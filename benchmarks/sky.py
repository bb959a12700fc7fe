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


def measure(run: Run, seed: int) -> str:
    """Precision and recall over the pixels of all photos, and those photos where either is poor."""
    from quoin.tools.synthetic.landmark import build
    from quoin.tools.synthetic.photo_renderer import raycaster

    made, posed = build(seed), posed_images.read_posed(run)
    caster, found, true, both, poor = raycaster(made.vertices, made.faces), 0, 0, 0, []
    for index, (width, height) in enumerate(posed.sizes.tolist()):
        origin, directions = rays_world(posed.cam_from_world[index], posed.intrinsics[index], pixel_grid(width, height))
        rays = np.concatenate([np.broadcast_to(origin, directions.shape), directions], axis=1).astype(np.float32)
        empty = ~np.isfinite(caster.cast_rays(rays)["t_hit"].numpy())
        sky = (priors.read_labels_whole(run, index, posed.sizes[index]) == labels.SKY).ravel()
        right = int((sky & empty).sum())
        found, true, both = found + int(sky.sum()), true + int(empty.sum()), both + right
        if right < 0.97 * sky.sum() or right < 0.6 * empty.sum():
            poor.append(f"{posed.names[index]} ({empty.mean():.1%} sky: {right / max(empty.sum(), 1):.0%} found)")
    return f"precision {both / max(found, 1):.4f}, recall {both / max(true, 1):.4f}; poor: {', '.join(poor) or 'none'}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    print(measure(Run.open(given.run), given.seed))
