"""Mapping that does not lay look-alikes over one another: map, look for conflicts, map again without their pairs."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.checks.ambiguity import BORNE_OUT, Compared, compare, contradicted, sides
from quoin.stages.pose.checks.registration import gate
from quoin.stages.pose.checks.weak_links import MIN_GROUP
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.mapping import map_photos
from quoin.stages.pose.workspace import Component, Workshop

Array = np.ndarray

ROUNDS = 3  # of mapping again without the pairs in conflict
WHOLLY = 0.95  # balance of a pair across the sides from which on nothing speaks against it
MANY_CONTRADICTED = 3  # strong pairs that the poses contradict; as many and
AS_MANY = 0.9  # of the photos that another mapper must place to be taken in place of one that tears pairs apart
CONTRADICTED_SHARE = 0.03  # more than this share of all strong ones are told
NAMED = 4  # photos named in a message


def map_apart(
    shop: Workshop, config: PoseConfig, pairs: Int[Array, "m 4"], names: list[str]
) -> tuple[list[Component], str]:
    """What ``map_photos`` finds, without photos laid over others that only look the same.

    Where two groups of the largest component are in conflict, the matches that hold them together are put aside and all
    photos are mapped again. Where that does not help, or places fewer photos than one of the groups has, the groups
    become components of their own. Where strong pairs are torn apart even then, the other mapper gets its chance.
    ``doubts`` of the first component say what was done, and what is still doubtful.
    """
    components, mapper, torn = _map_apart(shop, config, pairs, names)
    if torn and config.mapper == "auto":
        shop.report.log("pose", "The poses contradict strong pairs of photos; trying the other mapper")
        other = config.model_copy(update={"mapper": "global" if mapper == "incremental" else "incremental"})
        try:
            second, second_mapper, second_torn = _map_apart(shop, other, pairs, names)
        except QuoinError:
            return components, mapper
        if second and second_torn < torn and second[0].n_photos >= AS_MANY * components[0].n_photos:
            return second, second_mapper
    return components, mapper


def _map_apart(
    shop: Workshop, config: PoseConfig, pairs: Int[Array, "m 4"], names: list[str]
) -> tuple[list[Component], str, float]:
    """Components, the mapper, and the share of strong pairs that the poses contradict (0 where few are)."""
    components, mapper = map_photos(shop, config, pairs, len(names))
    folded, first_mapper, doubts = components, mapper, []
    for attempt in range(ROUNDS):
        found = _conflict(shop, components)
        if found is None:
            break
        side, compared = found
        model = components[0].gated.model
        wrong = binding_pairs(model, side, compared, pairs)
        text = (
            f"{int(side.sum())} photos ({listed(names, model.photo_ids[side])}) were laid over others that look the "
            f"same but show another place; {len(wrong)} pairs of photos were put aside"
        )
        shop.report.log("pose", "Photos lie over others that only look the same; mapping again without their pairs")
        doubts.append(text)
        if not len(wrong):
            break
        shop, pairs = shop.without_pairs(wrong, f"apart{attempt}-{shop.database.stem}"), _others(pairs, wrong)
        try:
            components, mapper = map_photos(shop, config, pairs, len(names))
        except QuoinError:  # what was mapped before is left
            components = []
    if doubts:
        parted = part(shop, folded, config.min_points)
        if _conflict(shop, components) is not None or not components or components[0].n_photos < parted[0].n_photos:
            components, mapper = parted, first_mapper
    if not components:
        return [], mapper, 0.0
    torn = contradictions(components[0].gated.model, pairs, names)
    components[0].doubts.extend([*doubts, *([torn[0]] if torn else [])])
    return components, mapper, torn[1] if torn else 0.0


def _conflict(shop: Workshop, components: list[Component]) -> tuple[Bool[Array, "k"], Compared] | None:
    if not components or components[0].n_photos < 2 * MIN_GROUP:
        return None
    model = components[0].gated.model
    with shop.report.task("pose/comparing", len(model.photo_ids), "photos") as advance:
        compared = compare(model, advance)
    side = sides(compared, len(model.photo_ids))
    return None if side is None else (side, compared)


def binding_pairs(
    model: SparseModel, side: Bool[Array, "k"], compared: Compared, pairs: Int[Array, "m 4"]
) -> Int[Array, "c 2"]:
    """Verified pairs (photo ids) across the sides that the model bears out, without those that agree all over.

    What the model contradicts stays: it may be what is true.
    """
    a, b = model.rows_of(pairs[:, :2]).T
    across = (a >= 0) & (b >= 0) & (pairs[:, 3] > 0) & (side[a] != side[b])
    n_shared = np.asarray(model.shared_points()[a, b]).ravel()
    agree = {tuple(pair) for pair in compared.photos[compared.balance > WHOLLY].tolist()}
    agrees = np.array([(min(p, q), max(p, q)) in agree for p, q in zip(a.tolist(), b.tolist(), strict=True)], bool)
    return pairs[across & (n_shared >= BORNE_OUT * pairs[:, 3]) & ~agrees][:, :2]


def _others(pairs: Int[Array, "m 4"], wrong: Int[Array, "c 2"]) -> Int[Array, "k 4"]:
    gone = {tuple(pair) for pair in wrong.tolist()}
    return pairs[[tuple(pair) not in gone for pair in pairs[:, :2].tolist()]]


def part(shop: Workshop, components: list[Component], min_points: int) -> list[Component]:
    """The components, the first parted where its photos are in conflict, until none is; largest first."""
    found = _conflict(shop, components[:1])
    if found is None:
        return components
    whole, side = components[0], found[0]
    pieces: list[Component] = []
    for chosen in (side, ~side):
        piece = Component(whole.path, gate(whole.gated.model.keep_photos(chosen), min_points))
        pieces += part(shop, [piece], min_points)
    pieces[0].gated.dropped.update(whole.gated.dropped)
    return sorted([*pieces, *components[1:]], key=lambda component: -component.n_photos)


def contradictions(model: SparseModel, pairs: Int[Array, "m 4"], names: list[str]) -> tuple[str, float] | None:
    """A sentence where many strong pairs are torn apart by the poses, and their share; None where few are."""
    torn, n_strong = contradicted(model, pairs)
    if len(torn) < MANY_CONTRADICTED or len(torn) < CONTRADICTED_SHARE * n_strong:
        return None
    ids, counts = np.unique(torn, return_counts=True)
    ids = ids[np.argsort(-counts, kind="stable")]
    text = (
        f"{len(torn)} of {n_strong} strong pairs of photos contradict the poses ({listed(names, ids)}): symmetric or "
        "repeated parts may lie over one another"
    )
    return text, len(torn) / n_strong


def listed(names: list[str], ids: Int[Array, "n"]) -> str:
    """The first few names, and how many more there are."""
    text = ", ".join(names[i] for i in ids[:NAMED])
    return text if len(ids) <= NAMED else f"{text} and {len(ids) - NAMED} more"
