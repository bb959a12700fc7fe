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
from benchmarks.measure import (
    DATA,
    REPOSITORY,
    BenchmarkSkipped,
    Measurement,
    Metrics,
    describe_environment,
    read_json,
    read_stage_results,
    run_quoin,
)

RESULTS = Path(__file__).parent / "results"


def help_(out: Path) -> tuple[Measurement, Metrics]:
    """The least of five, as what else the machine does only adds."""
    runs = [run_quoin("--help") for _ in range(5)]
    return runs[0], {"seconds_least_of_5": min(run.seconds for run in runs)}


def demo(out: Path) -> tuple[Measurement, Metrics]:
    measured = run_quoin("demo", "--out", out)
    return measured, {**read_stage_results(out / "run"), "evaluation": read_json(out / "run" / "evaluation.json")}


def poses(photos: Path, truth: Path) -> Callable[[Path], tuple[Measurement, Metrics]]:
    """Poses alone, compared with measured cameras."""

    def case(out: Path) -> tuple[Measurement, Metrics]:
        from quoin.pipeline.scene import posed_images
        from quoin.pipeline.storage.run import Run
        from quoin.tools.evaluate.reference_cameras import align_to_reference, read_cameras

        measured = run_quoin("plan", photos, "--out", out)
        posed = posed_images.read_posed(Run.open(out))
        _, errors, _ = align_to_reference(posed.names, posed.cam_from_world, read_cameras(truth), seed=0)
        return measured, {**read_stage_results(out), "poses": errors.model_dump()}

    return case


def reconstruction(photos: Path) -> Callable[[Path], tuple[Measurement, Metrics]]:
    """The whole way, at the defaults."""

    def case(out: Path) -> tuple[Measurement, Metrics]:
        return run_quoin("reconstruct", photos, "--out", out), read_stage_results(out)

    return case


def gpu(out: Path) -> tuple[Measurement, Metrics]:
    """A training step on CUDA."""
    from benchmarks.gpu import measure_gpu_step

    return measure_gpu_step()


def executor(out: Path) -> tuple[Measurement, Metrics]:
    """Handing out jobs on Ray."""
    from benchmarks.executor import measure_executor

    return measure_executor(out)


CASES: dict[str, tuple[Path, Callable[[Path], tuple[Measurement, Metrics]]]] = {  # what it needs, how it is measured
    "help": (REPOSITORY, help_),
    "demo": (REPOSITORY, demo),
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
    "cloud": (cloud.CLOUD_PHOTOS, cloud.measure_cloud),
    "gpu": (REPOSITORY, gpu),
    "executor": (REPOSITORY, executor),
    "ablation-demo": (REPOSITORY, ablation.ablate_demo),
    "ablation-fountain": (ablation.FOUNTAIN_DATA, ablation.ablate_fountain),
    "room": (REPOSITORY, room.measure_room),
    "prefect": (REPOSITORY, overhead.measure_overhead),
    "prefect-demo": (REPOSITORY, overhead.demo_overhead),
    "board": (REPOSITORY, board.measure_board),
    "soak": (REPOSITORY, soak.measure_soak),
    "soak-queue": (REPOSITORY, soak_queue.measure_soak_queue),
    "wild": (REPOSITORY, wild.measure_wild),
    "scale": (REPOSITORY, scale.measure_scale),
    **{f"scale-{size}": (REPOSITORY, scale.town_case(size)) for size in scale.TOWN_QUARTERS},
    "lost": (REPOSITORY, lost.measure_lost),
    "liberty": (silhouettes.LIBERTY_DATA, silhouettes.compare_liberty),
    "sacre_coeur": (DATA / "sacre_coeur", reconstruction(DATA / "sacre_coeur" / "images")),
    "cyprus": (DATA / "cyprus", reconstruction(DATA / "cyprus" / "images")),
}


# what takes as long as one says: what it needs, seconds where --seconds says nothing, how it is measured
TIMED_CASES: dict[str, tuple[Path, float, Callable[..., tuple[Measurement, Metrics]]]] = {
    **{f"views-{name}": (photos.folder, 300.0, views.measure_views(name)) for name, photos in views.VIEW_SETS.items()},
    "lego": (lego.LEGO_DATA, 1200.0, lego.measure_lego),
}


def all_cases(seconds: float | None) -> dict[str, tuple[Path, Callable[[Path], tuple[Measurement, Metrics]]]]:
    """All cases, those that take as long as one says with ``seconds``, or with their own where that is None."""
    timed = {
        name: (needs, functools.partial(case, seconds=seconds or usual))
        for name, (needs, usual, case) in TIMED_CASES.items()
    }
    return {**CASES, **timed}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    names = ", ".join([*CASES, *TIMED_CASES])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of {names}; all where none is named")
    parser.add_argument("--seconds", type=float, help=f"of training, or in all, in {', '.join(TIMED_CASES)}")
    parser.add_argument("--keep", type=Path, help="folder for the runs; a temporary one where not given")
    args = parser.parse_args()
    cases = all_cases(args.seconds)
    if unknown := set(args.cases) - set(cases):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    environment = describe_environment()  # before results change the tree
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        for name in args.cases or cases:
            needs, case = cases[name]
            if not needs.exists():
                print(f"{name}: skipped, {needs} is absent")
                continue
            try:
                measured, numbers = case(folder / name)
            except BenchmarkSkipped as why:
                print(f"{name}: skipped, {why}")
                continue
            result = {"case": name, **asdict(measured), **environment, **numbers}
            RESULTS.mkdir(exist_ok=True)
            text = json.dumps(result, indent=1).replace(str(folder), "OUT").replace(str(REPOSITORY.parent), "..")
            (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
            peak_gib = measured.peak_memory_bytes / 2**30
            print(f"{name}: exit {measured.exit_status}, {measured.seconds:.1f} s, {peak_gib:.2f} GiB")


if __name__ == "__main__":
    main()
