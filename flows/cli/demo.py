"""``quoin demo``: a generated collection, reconstructed through the same path as any photos, and scored."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quoin.flows.cli.evaluate import evaluate_run
from quoin.flows.cli.summary import print_summary
from quoin.flows.session import started
from quoin.pipeline.core.config import build, digest
from quoin.pipeline.storage.atomic import disk_error, write_atomic
from quoin.pipeline.storage.run import Run
from quoin.tools.synthetic.config import DemoConfig, DemoTruth

if TYPE_CHECKING:
    from quoin.flows.cli.options import How, What


DISTANCES_M: dict[str, tuple[float, ...]] = {
    "room": (0.02, 0.05, 0.1),
    "town": (0.1, 0.2, 0.5),
}  # else shares of the diagonal


def run_demo(out: Path, wanted: dict[str, Any], what: What, how: How) -> None:
    """Generate into ``out``/collection (kept where it is the same), reconstruct into ``out``/run, print the score.

    The room is scored at 2, 5 (as ManhattanSDF is) and 10 cm, the town at 10, 20 and 50 cm, the landmark at
    shares of its diagonal. ``wanted``: values of DemoConfig.
    """
    settings = what.settings()
    config = build(DemoConfig, wanted)
    collection = out / "collection"
    photos = collection / "photos"
    try:
        photos.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, photos) from error
    with started(photos, out / "run", settings, what.seed) as run:
        truth = collect(run, collection, config, what.seed, how)
        how.work(run, settings)
        print_summary(run, quiet=how.quiet or how.json)
        with how.reporter(run) as report:
            evaluate_run(run, Path(truth.mesh), Path(truth.cameras), DISTANCES_M.get(config.scene, ()), report)


def collect(run: Run, folder: Path, config: DemoConfig, seed: int, how: How) -> DemoTruth:
    """The generated collection in ``folder``; made where it is not there, or was made otherwise."""
    from quoin.tools.synthetic.generate import generate

    stamp, key = folder / "key", digest([config.model_dump(), seed])
    facts = folder / "truth" / "demo.json"
    if facts.exists() and stamp.exists() and stamp.read_text() == key:
        return DemoTruth.model_validate_json(facts.read_bytes())
    stamp.unlink(missing_ok=True)  # until it is whole again
    for stale in (folder / "photos").glob("*"):
        stale.unlink()
    with how.reporter(run) as report:
        truth = generate(folder, config, seed, report)
    write_atomic(stamp, key.encode())
    return truth
