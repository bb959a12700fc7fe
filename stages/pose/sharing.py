"""Features and matches by many hands: what they leave goes into the stage's database, where what is missing is done.

What is found does not depend on how it is portioned, and a photo or a pair that the database has is not handed out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from jaxtyping import Int

from stages.pose.hands import PHOTOS, Hands, PhotosUnseen, Portion
from stages.pose.model import Camera
from stages.pose.spot import IMAGES_PER_PAIR
from stages.pose.tables import FEATURES, MATCHES, copy_rows, keys_in
from stages.pose.work import features_file, leave_features
from stages.pose.workshop import WORK, Workshop

Array = np.ndarray
Advance = Callable[[float], None]

PAIRS = (50, 500)  # of a portion: at least, so that fetching features costs less than matching them; at most
MOST_PHOTOS = 256  # that the pairs of a portion are of


def share_features(shop: Workshop, hands: Hands, job: dict[str, Any], cameras: list[Camera], advance: Advance) -> None:
    """Fill the database with the photos and cameras of ``job``, and with the features that the hands find."""
    shop.colmap("filling", job)
    shop.cameras = {photo["id"]: cameras[photo["camera"]] for photo in job["photos"]}
    done = {image_id - 1 for image_id in keys_in(shop.database, "descriptors")}
    portions = {number: ids for number, ids in in_portions(shop.cameras).items() if not done.issuperset(ids)}
    n_done = len(shop.cameras) - sum(map(len, portions.values()))
    numbers = list(portions)
    given = [Portion((number, ids, *shop.cameras_of(ids)), len(ids)) for number, ids in portions.items()]
    try:
        for at, _ in hands.each("features", given):
            number = numbers[at]
            with shop.run.borrowed(features_file(number)) as source:
                copy_rows(source, shop.database, FEATURES)
            shop.shared.add(number)
            n_done += len(portions[number])
            advance(n_done)
    except PhotosUnseen as error:
        shop.go_on_alone(error)


def share_matches(shop: Workshop, hands: Hands, pairs: Int[Array, "m 2"], advance: Advance) -> None:
    """Put into the database what the hands find of the pairs."""
    done = keys_in(shop.database, "two_view_geometries")
    pairs = np.sort(pairs, axis=1)
    new = pairs[[int(pair_id) not in done for pair_id in IMAGES_PER_PAIR * (pairs[:, 0] + 1) + pairs[:, 1] + 1]]
    parts = list(cut(new, hands.n))
    _leave(shop, in_portions(np.unique(new).tolist()))
    given = []
    for part in parts:
        photos = in_portions(np.unique(part).tolist())
        ids = [photo_id for some in photos.values() for photo_id in some]
        given.append(Portion((part, photos, *shop.cameras_of(ids)), len(part)))
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


def in_portions(photo_ids: Iterable[int]) -> dict[int, list[int]]:
    """Photos by portion."""
    found: dict[int, list[int]] = defaultdict(list)
    for photo_id in sorted(photo_ids):
        found[photo_id // PHOTOS].append(photo_id)
    return dict(found)


def cut(pairs: Int[Array, "m 2"], n_hands: int) -> Iterator[Int[Array, "k 2"]]:
    """Portions of pairs, each of few portions of photos."""
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


def _leave(shop: Workshop, numbers: Iterable[int]) -> None:
    """Write the files of features that an earlier attempt has removed, or one process has found."""
    portions = in_portions(shop.cameras)
    for number in numbers:
        if number not in shop.shared:
            leave_features(shop.run, shop.database, number, portions[number])
            shop.shared.add(number)
