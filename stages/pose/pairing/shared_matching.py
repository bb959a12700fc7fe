"""Features and matches by many hands: what they leave goes into the stage's database, where what is missing is done.

What is found does not depend on how it is portioned, and a photo or a pair that the database has is not handed out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Int

from quoin.stages.pose.checks.pure_rotation import IMAGES_PER_PAIR
from quoin.stages.pose.colmap.database import MATCHES, copy_rows, keys_in
from quoin.stages.pose.colmap.sparse_model import Camera
from quoin.stages.pose.hands import PHOTOS, Alone, Hands, Portion
from quoin.stages.pose.matching_jobs import leave_features, take_features
from quoin.stages.pose.workspace import WORK, Workshop

Array = np.ndarray
Advance = Callable[[float], None]

PAIRS = (50, 500)  # of a portion: at least, so that fetching features costs less than matching them; at most
MOST_PHOTOS = 256  # that the pairs of a portion are of


def share_features(shop: Workshop, hands: Hands, job: dict[str, Any], cameras: list[Camera], advance: Advance) -> None:
    """Fill the database with the photos and cameras of ``job``, and with the features that the hands find."""
    shop.colmap("filling", job)
    shop.cameras = {photo["id"]: cameras[photo["camera"]] for photo in job["photos"]}
    done = {image_id - 1 for image_id in keys_in(shop.database, "descriptors")}
    todo = sorted(shop.cameras.keys() - done)
    portions = [todo[start : start + PHOTOS] for start in range(0, len(todo), PHOTOS)]
    n_done = len(shop.cameras) - len(todo)
    try:
        for at, _ in hands.each("features", [Portion((ids, *shop.cameras_of(ids)), len(ids)) for ids in portions]):
            take_features(shop.run, shop.database, portions[at])
            shop.shared.update(portions[at])
            n_done += len(portions[at])
            advance(n_done)
    except Alone as error:
        shop.go_on_alone(error)


def share_matches(shop: Workshop, hands: Hands, pairs: Int[Array, "m 2"], advance: Advance) -> None:
    """Put into the database what the hands find of the pairs."""
    done = keys_in(shop.database, "two_view_geometries")
    pairs = np.sort(pairs, axis=1)
    new = pairs[[int(pair_id) not in done for pair_id in IMAGES_PER_PAIR * (pairs[:, 0] + 1) + pairs[:, 1] + 1]]
    parts = list(cut(new, hands.n))
    missing = sorted(set(np.unique(new).tolist()) - shop.shared)  # an earlier attempt removed them, or left none
    leave_features(shop.run, shop.database, missing)
    shop.shared.update(missing)
    given = []
    for part in parts:
        ids = np.unique(part).tolist()
        given.append(Portion((part, ids, *shop.cameras_of(ids)), len(part)))
    n_done = len(pairs) - len(new)
    with TemporaryDirectory(dir=shop.folder) as folder:
        found = Path(folder) / "found.db"
        for at, data in hands.each("matches", given):
            found.write_bytes(data)
            copy_rows(found, shop.database, MATCHES)
            n_done += len(parts[at])
            advance(n_done)


def forget_shared(shop: Workshop) -> None:
    """Remove the files of features, which the database has too, also those of an attempt that was killed."""
    shop.run.remove(f"{WORK}/shared")
    shop.shared.clear()


def cut(pairs: Int[Array, "m 2"], n_hands: int) -> Iterator[Int[Array, "k 2"]]:
    """Portions of pairs, each of few photos."""
    most = int(np.clip(-(-len(pairs) // (2 * n_hands)), *PAIRS))
    order = np.lexsort((*pairs.T[::-1], pairs[:, 1] // PHOTOS, pairs[:, 0] // PHOTOS))
    part: list[int] = []
    photos: set[int] = set()
    for row in order.tolist():
        both = set(pairs[row].tolist())
        if len(part) == most or len(photos | both) > MOST_PHOTOS:
            yield pairs[part]
            part, photos = [], set()
        part.append(row)
        photos |= both
    if part:
        yield pairs[part]
