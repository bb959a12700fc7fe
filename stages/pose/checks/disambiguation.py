"""Disambiguation of look-alikes: map, find groups of photos in conflict, map again without the pairs between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.checks.ambiguity import (
    AMBIGUITY,
    PairComparison,
    compare_photos,
    find_conflicting_side,
    find_contradicted_pairs,
)
from quoin.stages.pose.checks.registration import filter_photos
from quoin.stages.pose.checks.weak_links import WEAK_LINKS
from quoin.stages.pose.colmap.sparse_model import SparseModel
from quoin.stages.pose.config import PoseConfig
from quoin.stages.pose.mapping import map_photos
from quoin.stages.pose.workspace import Component, Workspace

Array = np.ndarray


@dataclass(frozen=True)
class DisambiguationParams:
    """Limits of mapping again without the pairs that lay look-alikes over one another."""

    max_remapping_rounds: int = 3  # rounds of mapping again without the pairs in conflict
    min_undisputed_balance: float = 0.95  # balance of a pair across the sides from which on nothing speaks against it
    min_contradicted_pairs: int = 3  # strong pairs that the poses contradict, from which on it is reported
    min_contradicted_share: float = 0.03  # share of all strong pairs, likewise; both must hold
    min_kept_photos_share: float = 0.9  # photos that the other mapper must register, per photo of the first
    max_named_photos: int = 4  # photos named in a message


DISAMBIGUATION = DisambiguationParams()


def map_with_disambiguation(
    workspace: Workspace, config: PoseConfig, pairs: Int[Array, "m 4"], names: list[str]
) -> tuple[list[Component], str]:
    """Components of ``map_photos`` without photos laid over others that only look the same, and the mapper.

    Where two groups of the largest component are in conflict, all photos are mapped again without the matches between
    them. Where that does not help, or registers fewer photos than one of the groups has, the groups become components
    of their own. Where the poses contradict strong pairs even then, the other mapper is tried. ``warnings`` of the
    first component say what was done, and what is still doubtful.
    """
    components, mapper, torn_share = _map_with_disambiguation(workspace, config, pairs, names)
    if torn_share and config.mapper == "auto":
        workspace.report.log("pose", "The poses contradict strong pairs of photos; trying the other mapper")
        other_config = config.model_copy(update={"mapper": "global" if mapper == "incremental" else "incremental"})
        try:
            other_components, other_mapper, other_torn_share = _map_with_disambiguation(
                workspace, other_config, pairs, names
            )
        except QuoinError:
            return components, mapper
        if (
            other_components
            and other_torn_share < torn_share
            and other_components[0].n_photos >= DISAMBIGUATION.min_kept_photos_share * components[0].n_photos
        ):
            return other_components, other_mapper
    return components, mapper


def _map_with_disambiguation(
    workspace: Workspace, config: PoseConfig, pairs: Int[Array, "m 4"], names: list[str]
) -> tuple[list[Component], str, float]:
    """Components, the mapper, and the share of strong pairs that the poses contradict (0 where they are few)."""
    components, mapper = map_photos(workspace, config, pairs, len(names))
    first_components, first_mapper, warnings = components, mapper, []
    for attempt in range(DISAMBIGUATION.max_remapping_rounds):
        conflict = _find_conflict(workspace, components)
        if conflict is None:
            break
        side, comparison = conflict
        model = components[0].filtered.model
        binding = find_binding_pairs(model, side, comparison, pairs)
        text = (
            f"{int(side.sum())} photos ({format_names(names, model.photo_ids[side])}) were laid over others that "
            f"look the same but show another place; {len(binding)} pairs of photos were left out"
        )
        workspace.report.log(
            "pose", "Photos lie over others that only look the same; mapping again without their pairs"
        )
        warnings.append(text)
        if not len(binding):
            break
        workspace, pairs = (
            workspace.without_pairs(binding, f"apart{attempt}-{workspace.database.stem}"),
            _without_pairs(pairs, binding),
        )
        try:
            components, mapper = map_photos(workspace, config, pairs, len(names))
        except QuoinError:  # what was mapped before is left
            components = []
    if warnings:
        split_up = split_conflicting(workspace, first_components, config.min_points)
        if (
            _find_conflict(workspace, components) is not None
            or not components
            or components[0].n_photos < split_up[0].n_photos
        ):
            components, mapper = split_up, first_mapper
    if not components:
        return [], mapper, 0.0
    contradiction = describe_contradictions(components[0].filtered.model, pairs, names)
    components[0].warnings.extend([*warnings, *([contradiction[0]] if contradiction else [])])
    return components, mapper, contradiction[1] if contradiction else 0.0


def _find_conflict(workspace: Workspace, components: list[Component]) -> tuple[Bool[Array, "k"], PairComparison] | None:
    if not components or components[0].n_photos < 2 * WEAK_LINKS.min_cut_side_photos:
        return None
    model = components[0].filtered.model
    with workspace.report.task("pose/comparing", len(model.photo_ids), "photos") as advance:
        comparison = compare_photos(model, advance)
    side = find_conflicting_side(comparison, len(model.photo_ids))
    return None if side is None else (side, comparison)


def find_binding_pairs(
    model: SparseModel, side: Bool[Array, "k"], comparison: PairComparison, pairs: Int[Array, "m 4"]
) -> Int[Array, "c 2"]:
    """Verified pairs (photo ids) across the sides that are points of the model, without those that agree everywhere.

    Pairs that the model contradicts stay: they may be the true ones.
    """
    a, b = model.rows_of(pairs[:, :2]).T
    across = (a >= 0) & (b >= 0) & (pairs[:, 3] > 0) & (side[a] != side[b])
    n_shared = np.asarray(model.shared_points()[a, b]).ravel()
    agree = {
        tuple(pair) for pair in comparison.photos[comparison.balance > DISAMBIGUATION.min_undisputed_balance].tolist()
    }
    agrees = np.array([(min(p, q), max(p, q)) in agree for p, q in zip(a.tolist(), b.tolist(), strict=True)], bool)
    return pairs[across & (n_shared >= AMBIGUITY.min_reconstructed_inlier_share * pairs[:, 3]) & ~agrees][:, :2]


def _without_pairs(pairs: Int[Array, "m 4"], binding: Int[Array, "c 2"]) -> Int[Array, "k 4"]:
    dropped_pairs = {tuple(pair) for pair in binding.tolist()}
    return pairs[[tuple(pair) not in dropped_pairs for pair in pairs[:, :2].tolist()]]


def split_conflicting(workspace: Workspace, components: list[Component], min_points: int) -> list[Component]:
    """The components, the first split until no groups of its photos are in conflict; largest first."""
    conflict = _find_conflict(workspace, components[:1])
    if conflict is None:
        return components
    largest, side = components[0], conflict[0]
    pieces: list[Component] = []
    for chosen in (side, ~side):
        piece = Component(largest.path, filter_photos(largest.filtered.model.keep_photos(chosen), min_points))
        pieces += split_conflicting(workspace, [piece], min_points)
    pieces[0].filtered.dropped.update(largest.filtered.dropped)
    return sorted([*pieces, *components[1:]], key=lambda component: -component.n_photos)


def describe_contradictions(model: SparseModel, pairs: Int[Array, "m 4"], names: list[str]) -> tuple[str, float] | None:
    """Warning that the poses contradict many strong pairs, and their share; None where they are few."""
    contradicted_pairs, n_strong = find_contradicted_pairs(model, pairs)
    n_reported = max(DISAMBIGUATION.min_contradicted_pairs, DISAMBIGUATION.min_contradicted_share * n_strong)
    if len(contradicted_pairs) < n_reported:
        return None
    ids, counts = np.unique(contradicted_pairs, return_counts=True)
    ids = ids[np.argsort(-counts, kind="stable")]
    text = (
        f"{len(contradicted_pairs)} of {n_strong} strong pairs of photos contradict the poses "
        f"({format_names(names, ids)}): symmetric or repeated parts may lie over one another"
    )
    return text, len(contradicted_pairs) / n_strong


def format_names(names: list[str], ids: Int[Array, "n"]) -> str:
    """Text of the first few names and the number of further ones."""
    n_named = DISAMBIGUATION.max_named_photos
    text = ", ".join(names[i] for i in ids[:n_named])
    return text if len(ids) <= n_named else f"{text} and {len(ids) - n_named} more"
