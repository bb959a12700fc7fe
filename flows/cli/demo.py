"""``quoin demo``: generate a photo collection, reconstruct it like any other, print the score."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from quoin.flows.cli.evaluate import evaluate_run
from quoin.flows.cli.options import print_summary
from quoin.flows.session import start_run
from quoin.pipeline.core.config import digest, validate_config
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.disk import disk_error, write_atomic
from quoin.pipeline.storage.run import Run
from quoin.tools.synthetic.config import ROOM_SETTINGS, TOWN_SETTINGS, WILD_SETTINGS, SyntheticConfig, SyntheticTruth

if TYPE_CHECKING:
    from quoin.flows.cli.options import ResultOptions, RunOptions


SCORE_DISTANCES_M: dict[str, tuple[float, ...]] = {
    "room": (0.02, 0.05, 0.1),
    "town": (0.1, 0.2, 0.5),
}  # of other scenes: shares of the diagonal


def scene_settings(scene: str, quarters: int, plain: bool, wild: bool) -> dict[str, Any]:
    """Values of SyntheticConfig for a scene; QuoinError for options that it does not have."""
    if scene == "landmark":
        return {"textureless_walls": plain, **(WILD_SETTINGS if wild else {})}
    if plain or wild:
        raise QuoinError("Only the landmark has --plain and --wild", where=f"--scene {scene}", hint="leave them out")
    return ROOM_SETTINGS if scene == "room" else {**TOWN_SETTINGS, "quarters": quarters}


def run_demo(out: Path, config_values: dict[str, Any], result_options: ResultOptions, run_options: RunOptions) -> None:
    """Generate into ``out``/collection (unless it is there already), reconstruct into ``out``/run, print the score.

    The room is scored at 2, 5 (as in ManhattanSDF) and 10 cm, the town at 10, 20 and 50 cm, the landmark at
    shares of its diagonal. ``config_values`` are those of SyntheticConfig.
    """
    settings = result_options.settings()
    config = validate_config(SyntheticConfig, config_values)
    collection = out / "collection"
    photos = collection / "photos"
    try:
        photos.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk_error(error, photos) from error
    with start_run(photos, out / "run", settings, result_options.seed) as run:
        truth = generate_collection(run, collection, config, result_options.seed, run_options)
        run_options.execute(run, settings)
        print_summary(run, quiet=run_options.quiet or run_options.json)
        with run_options.reporter(run) as report:
            evaluate_run(run, Path(truth.mesh), Path(truth.cameras), SCORE_DISTANCES_M.get(config.scene, ()), report)


def generate_collection(
    run: Run, folder: Path, config: SyntheticConfig, seed: int, run_options: RunOptions
) -> SyntheticTruth:
    """The truth of the collection in ``folder``, generated unless it is there with the same configuration."""
    from quoin.tools.synthetic.generate import generate_photos

    key_file, key = folder / "key", digest([config.model_dump(), seed])
    truth_file = folder / "truth" / "demo.json"
    if truth_file.exists() and key_file.exists() and key_file.read_text() == key:
        return SyntheticTruth.model_validate_json(truth_file.read_bytes())
    key_file.unlink(missing_ok=True)  # written again when the collection is complete
    for stale in (folder / "photos").glob("*"):
        stale.unlink()
    with run_options.reporter(run) as report:
        truth = generate_photos(folder, config, seed, report)
    write_atomic(key_file, key.encode())
    return truth
