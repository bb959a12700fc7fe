"""``python -m benchmarks [CASE …]``: measure, print, and keep the numbers in benchmarks/results/<case>.json."""

from __future__ import annotations

import argparse
import functools
import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks import (
    ablation,
    board,
    cloud,
    lego,
    lost,
    overhead,
    room,
    scale,
    silhouettes,
    soak,
    soak_queue,
    views,
    wild,
)
from benchmarks.measure import DATA, ROOT, Measured, Numbers, Skipped, circumstances, quoin, read, stages

RESULTS = Path(__file__).parent / "results"


def help_(out: Path) -> tuple[Measured, Numbers]:
    """The least of five, as what else the machine does only adds."""
    runs = [quoin("--help") for _ in range(5)]
    return runs[0], {"seconds_least_of_5": min(run.seconds for run in runs)}


def demo(out: Path) -> tuple[Measured, Numbers]:
    measured = quoin("demo", "--out", out)
    return measured, {**stages(out / "run"), "evaluation": read(out / "run" / "evaluation.json")}


def poses(photos: Path, truth: Path) -> Callable[[Path], tuple[Measured, Numbers]]:
    """Poses alone, compared with measured cameras."""

    def case(out: Path) -> tuple[Measured, Numbers]:
        from quoin.pipeline.scene import posed_images
        from quoin.pipeline.storage.run import Run
        from quoin.tools.evaluate.alignment import align
        from quoin.tools.evaluate.reference_cameras import read_cameras

        measured = quoin("plan", photos, "--out", out)
        posed = posed_images.read_posed(Run.open(out))
        _, errors, _ = align(posed.names, posed.cam_from_world, read_cameras(truth), seed=0)
        return measured, {**stages(out), "poses": errors.model_dump()}

    return case


def reconstruction(photos: Path) -> Callable[[Path], tuple[Measured, Numbers]]:
    """The whole way, at the defaults."""

    def case(out: Path) -> tuple[Measured, Numbers]:
        return quoin("reconstruct", photos, "--out", out), stages(out)

    return case


def gpu(out: Path) -> tuple[Measured, Numbers]:
    """A training step on CUDA."""
    from benchmarks.gpu import case

    return case()


def executor(out: Path) -> tuple[Measured, Numbers]:
    """Handing out jobs on Ray."""
    from benchmarks.executor import case

    return case(out)


CASES: dict[str, tuple[Path, Callable[[Path], tuple[Measured, Numbers]]]] = {  # what it needs, how it is measured
    "help": (ROOT, help_),
    "demo": (ROOT, demo),
    "fountain": (
        DATA / "strecha_fountain_p11",
        poses(DATA / "strecha_fountain_p11" / "images", DATA / "strecha_fountain_p11" / "gt_dense_cameras"),
    ),
    "castle": (
        DATA / "strecha_castle_p30",
        poses(DATA / "strecha_castle_p30" / "images", DATA / "strecha_castle_p30" / "gt_dense_cameras"),
    ),
    "sceaux": (DATA / "sceaux_castle", reconstruction(DATA / "sceaux_castle" / "images")),
    "bundler_et": (DATA / "bundler_et", reconstruction(DATA / "bundler_et")),
    "cloud": (cloud.PHOTOS, cloud.case),
    "gpu": (ROOT, gpu),
    "executor": (ROOT, executor),
    "ablation-demo": (ROOT, ablation.demo),
    "ablation-fountain": (ablation.FOUNTAIN, ablation.fountain),
    "room": (ROOT, room.case),
    "prefect": (ROOT, overhead.case),
    "prefect-demo": (ROOT, overhead.demo),
    "board": (ROOT, board.case),
    "soak": (ROOT, soak.case),
    "soak-queue": (ROOT, soak_queue.case),
    "wild": (ROOT, wild.case),
    "scale": (ROOT, scale.case),
    **{f"scale-{size}": (ROOT, scale.one(size)) for size in scale.QUARTERS},
    "lost": (ROOT, lost.case),
    "liberty": (silhouettes.LIBERTY, silhouettes.liberty),
    "sacre_coeur": (DATA / "sacre_coeur", reconstruction(DATA / "sacre_coeur" / "images")),
    "cyprus": (DATA / "cyprus", reconstruction(DATA / "cyprus" / "images")),
}


# what takes as long as one says: what it needs, seconds where --seconds says nothing, how it is measured
TIMED: dict[str, tuple[Path, float, Callable[..., tuple[Measured, Numbers]]]] = {
    **{f"views-{name}": (photos.folder, 300.0, views.case(name)) for name, photos in views.SETS.items()},
    "lego": (lego.SOURCE, 1200.0, lego.case),
}


def chosen(seconds: float | None) -> dict[str, tuple[Path, Callable[[Path], tuple[Measured, Numbers]]]]:
    """All cases, those that take as long as one says with ``seconds``, or with their own where that is None."""
    timed = {
        name: (needs, functools.partial(case, seconds=seconds or usual)) for name, (needs, usual, case) in TIMED.items()
    }
    return {**CASES, **timed}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join([*CASES, *TIMED])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of {names}; all where none is named")
    parser.add_argument("--seconds", type=float, help=f"of training, or in all, in {', '.join(TIMED)}")
    parser.add_argument("--keep", type=Path, help="folder for the runs; a temporary one where not given")
    given = parser.parse_args()
    cases = chosen(given.seconds)
    if unknown := set(given.cases) - set(cases):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    here = circumstances()  # before results change the tree
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.keep or Path(scratch)
        for name in given.cases or cases:
            needs, case = cases[name]
            if not needs.exists():
                print(f"{name}: skipped, {needs} is absent")
                continue
            try:
                measured, numbers = case(folder / name)
            except Skipped as why:
                print(f"{name}: skipped, {why}")
                continue
            result = {"case": name, **asdict(measured), **here, **numbers}
            RESULTS.mkdir(exist_ok=True)
            text = json.dumps(result, indent=1).replace(str(folder), "OUT").replace(str(ROOT.parent), "..")
            (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            peak_gib = measured.peak_memory_bytes / 2**30
            print(f"{name}: exit {measured.exit_status}, {measured.seconds:.1f} s, {peak_gib:.2f} GiB")


if __name__ == "__main__":
    main()
