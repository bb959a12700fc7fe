"""The command line. Everything heavy is imported inside the commands, so that ``quoin --help`` answers at once."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, CycloptsError

from quoin.flows.cli.errors import exit_on_error, exit_process, install_sigterm_handler
from quoin.flows.cli.options import DisplayOptions, Flag, ResultOptions, RunOptions
from quoin.flows.cli.version import version_text
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.object_store import storage_url

if TYPE_CHECKING:
    from quoin.pipeline.storage.run import Run

app = App(
    name="quoin",
    version=version_text,
    help="Turn photo collections into surface meshes, block by block.",
    help_format="plaintext",
)


@app.command(sort_key=1)
def reconstruct(
    photos: str,
    /,
    *clips: str,
    out: str | None = None,
    result_options: ResultOptions = ResultOptions(),
    run_options: RunOptions = RunOptions(),
) -> None:
    """Make a mesh from a folder of photos, from videos, or from both.

    Parameters
    ----------
    photos
        folder of photos and videos, or a video; a URL (s3://, gs://, az://) will do
    clips
        videos besides
    out
        run folder, or its URL; runs/<name of the photo folder> where not given
    """
    from quoin.flows.cli.summary import print_summary
    from quoin.flows.session import split_sources, start_run

    run_options.check()
    settings = result_options.settings()
    source, other_clips = split_sources([photos, *clips])
    with start_run(source, out or _default_out(source), settings, result_options.seed, other_clips) as run:
        run_options.execute(run, settings)
        print_summary(run, quiet=run_options.quiet or run_options.json)


@app.command(sort_key=2)
def resume(run: str, /, *, run_options: RunOptions = RunOptions()) -> None:
    """Go on with a run that was stopped.

    Parameters
    ----------
    run
        folder or URL of the run
    """
    from quoin.flows.cli.summary import print_summary
    from quoin.flows.session import resume_run, run_settings

    run_options.check()
    with resume_run(run) as opened:
        run_options.execute(opened, run_settings(opened))
        print_summary(opened, quiet=run_options.quiet or run_options.json)


@app.command(sort_key=3)
def plan(
    target: str,
    /,
    *clips: str,
    out: str | None = None,
    workers: int = 1,
    result_options: ResultOptions = ResultOptions(),
    run_options: RunOptions = RunOptions(),
) -> None:
    """Say what a reconstruction would take: blocks, time, memory, disk. Poses the photos, trains nothing.

    Parameters
    ----------
    target
        folder of photos and videos, a video, or a run
    clips
        videos besides
    out
        run folder, as for reconstruct, which goes on from there
    workers
        of a cluster, each with a device like the one here, that would share the work
    """
    from quoin.cluster.executor import pick_device
    from quoin.flows.cli.plan import print_plan
    from quoin.flows.session import resume_run, run_settings, split_sources, start_run
    from quoin.pipeline.storage.run import Run

    run_options.check()
    if workers < 1:
        raise QuoinError("A plan is for one worker or more", where=f"--workers {workers}", hint="give 1, 2, 3, ...")
    if Run.exists(target):
        opened_run = resume_run(target)
    else:
        settings = result_options.settings()
        photos, other_clips = split_sources([target, *clips])
        opened_run = start_run(photos, out or _default_out(photos), settings, result_options.seed, other_clips)
    with opened_run as run:
        run_options.execute(run, run_settings(run), last_stage="partition")
        print_plan(run, pick_device(run_options.device), workers)


@app.command(sort_key=4)
def evaluate(
    run: str,
    /,
    *,
    truth: Path | None = None,
    views: Annotated[bool, Flag] = False,
    cameras: Path | None = None,
    distance: Annotated[tuple[float, ...], Flag] = (),
    device: Literal["auto", "cpu", "cuda"] = "auto",
    display_options: DisplayOptions = DisplayOptions(),
) -> None:
    """Compare a run with a known surface (precision, recall, F, Chamfer, pose errors), or with photos it held out.

    Parameters
    ----------
    run
        folder or URL of the run
    truth
        mesh or points (PLY, OBJ, ...)
    views
        render the photos that were held out (partition.hold_out_every): PSNR and SSIM
    cameras
        reference cameras in the frame of the truth (transforms.json, a COLMAP model, .camera files, or a CSV of
        name,x,y,z); without them, those the run was given with --poses
    distance
        where F is measured, in the truth's unit; 0.25, 0.5 and 1 % of its diagonal where not given; may be repeated
    device
        what renders
    """
    from quoin.flows.cli.evaluate import evaluate_run
    from quoin.flows.session import resume_run

    with resume_run(run) as opened, display_options.reporter(opened) as report:
        evaluate_run(opened, truth, cameras, distance, report, views=device if views else None)


@app.command(sort_key=5)
def export(
    run: str, /, *, format: str, out: Path | None = None, display_options: DisplayOptions = DisplayOptions()
) -> None:
    """Write a run's mesh or cameras for other programs.

    Parameters
    ----------
    run
        folder or URL of the run
    format
        ply, glb, obj, colmap or nerfstudio
    out
        file or folder to write; in the run's folder exports/ where not given
    """
    from quoin.flows.session import resume_run
    from quoin.tools.export.export import export_run

    with resume_run(run) as opened, display_options.reporter(opened) as report:
        exported = export_run(opened, format, out or _export_path(opened, format), report)
        print(opened.public_path(exported.path))


@app.command(sort_key=6)
def render(
    run: str,
    /,
    *,
    path: Literal["orbit", "photos"] = "orbit",
    what: Literal["colour", "normals", "depth"] = "colour",
    out: Path | None = None,
    size: Annotated[tuple[int, int], Flag] = (640, 360),
    seconds: float = 6.0,
    fps: int = 24,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    display_options: DisplayOptions = DisplayOptions(),
) -> None:
    """Make a film of a run's trained surface.

    Parameters
    ----------
    run
        folder or URL of the run
    path
        around what the photos look at, or past the photos
    what
        what is shown
    out
        a video (.mp4), or a folder for pictures; films/<path>.mp4 in the run where not given
    size
        width and height in pixels, even numbers
    seconds
        how long the film is
    fps
        frames a second
    device
        what renders
    """
    from quoin.flows.cli.render import render_run
    from quoin.flows.session import resume_run
    from quoin.pipeline.core.config import validate_config
    from quoin.tools.render.config import FilmConfig

    film_options = {"path": path, "what": what, "width": size[0], "height": size[1], "seconds": seconds}
    config = validate_config(FilmConfig, {**film_options, "frames_per_s": fps})
    with resume_run(run) as opened, display_options.reporter(opened) as report:
        render_run(opened, config, out, device, report)


@app.command(sort_key=7)
def view(run: str, /, *, port: int = 0, browser: bool = True) -> None:
    """Look at a run in the browser: cameras, photos, points, mesh. Works on a run that is still going, too.

    Parameters
    ----------
    run
        folder or URL of the run
    port
        where it is served, on loopback only; 0 takes a free one
    browser
        open a browser at once
    """
    import webbrowser

    from quoin.pipeline.storage.run import Run
    from quoin.tools.view import VIEWER_HOST, serve_viewer

    server = serve_viewer(Run.open(run), port)
    address = f"http://{VIEWER_HOST}:{server.get_port()}"
    print(f"{address}   (Ctrl-C stops it)", flush=True)
    if browser:
        webbrowser.open(address)
    try:
        server.sleep_forever()
    finally:
        server.stop()


@app.command(sort_key=8)
def demo(
    *,
    out: Path = Path("runs/demo"),
    scene: Literal["landmark", "room", "town"] = "landmark",
    photos: int = 40,
    size: Annotated[tuple[int, int], Flag] = (800, 600),
    quarters: int = 16,
    plain: bool = False,
    wild: bool = False,
    preset: str | None = None,
    set: Annotated[tuple[str, ...], Flag] = (),
    seed: int = 0,
    run_options: RunOptions = RunOptions(),
) -> None:
    """Generate a photo collection with known truth, reconstruct it, and print its score.

    Parameters
    ----------
    out
        folder for the collection and the run
    scene
        a landmark seen from around it, a furnished room with bare walls seen from inside, or a town seen from the air
    photos
        how many photos of the landmark or the room; a town has as many as it needs, about 21 a quarter
    size
        width and height of a photo in pixels
    quarters
        how large the town is: quarters of 38 m by 38 m, and about as many blocks
    plain
        the landmark with whitewashed walls instead of stone and brick: harder, for there is nothing on them to match
    wild
        the landmark as strangers take it: a crowd before it, other exposures, tints and tone curves, more sky
    preset
        the name of a preset, or a YAML file; demo where not given, or town for the town
    set
        section.key=value, laid on top of the preset; may be repeated
    seed
        another seed builds another scene
    """
    from quoin.flows.cli.demo import run_demo
    from quoin.tools.synthetic.config import ROOM_SETTINGS, TOWN_SETTINGS, WILD_SETTINGS

    run_options.check()
    if storage_url(out):
        raise QuoinError("The demo writes its photos into a folder", where=out, hint="name a folder with --out")
    if scene != "landmark" and (plain or wild):
        why = "The room is bare as it is, and nobody is in it" if scene == "room" else "The town has one kind of walls"
        raise QuoinError(why, hint="leave --plain and --wild to the landmark")
    if scene == "landmark":
        scene_options = {"plain": plain, **(WILD_SETTINGS if wild else {})}
    else:
        scene_options = ROOM_SETTINGS if scene == "room" else {**TOWN_SETTINGS, "quarters": quarters}
    run_demo(
        out,
        {"n_photos": photos, "width": size[0], "height": size[1], **scene_options},
        ResultOptions(preset=preset or ("town" if scene == "town" else "demo"), set=set, seed=seed),
        run_options,
    )


@app.command(sort_key=9)
def doctor() -> None:
    """Say what is installed, which device there is, and which fast paths are active."""
    from quoin.flows.cli.doctor import print_report

    print_report()


@app.command(sort_key=10)
def ui(*, port: int = 4200) -> int:
    """Start a Prefect server on this machine to watch runs in the browser.

    Parameters
    ----------
    port
        where it listens, on loopback only
    """
    from quoin.flows.prefect.server import run_server

    return run_server(port)


@app.command(sort_key=11)
def submit(
    photos: str,
    /,
    *clips: str,
    to: str,
    out: str | None = None,
    result_options: ResultOptions = ResultOptions(),
    device: Literal["auto", "cpu", "cuda"] | None = None,
    executor: Literal["inline", "ray"] | None = None,
    address: str | None = None,
    gpu_share: float | None = None,
    watch: Annotated[bool, Flag] = False,
) -> int:
    """Hand a reconstruction to a Prefect work pool or a Ray cluster, and print where to watch it.

    Parameters
    ----------
    photos
        folder of photos and videos, or a video, as the worker sees it
    clips
        videos besides
    to
        name of a work pool, or the address of a Ray cluster (ray://… or http://…)
    out
        run folder, as the worker sees it; runs/<name of the photo folder> where not given
    device
        what trains; as the deployment says where not given, and so the next three
    executor
        blocks one after the other in the worker, or on Ray actors
    address
        a running Ray cluster (auto or host:port) for --executor ray; without one, Ray runs beside the worker
    gpu_share
        part of a GPU, and of its memory, that a Ray actor takes: 0.5 puts two on each
    watch
        follow the run until it has ended
    """
    from quoin.flows.prefect.submit import flow_parameters, submit_run

    out = out or str(_default_out(Path(photos)))
    where = {"device": device, "executor": executor, "address": address, "gpu_share": gpu_share}
    parameters = flow_parameters(
        photos, out, result_options.preset, result_options.overrides(), result_options.seed, list(clips), **where
    )
    return submit_run(to, parameters, watch=watch)


def main() -> None:
    """Entry point of the command ``quoin``."""
    install_sigterm_handler()
    exit_process(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command; returns its exit status: 0 done, 1 our mistake, 2 refused, 3 partial, 130 and 143 stopped."""
    try:
        with exit_on_error():
            try:
                return app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0
            except CycloptsError as error:
                raise QuoinError(str(error).rstrip("."), hint="see quoin --help") from None
    except SystemExit as end:
        return int(end.code or 0)


def _default_out(photos: Path | str) -> Path:
    source = Path(photos)
    name = source.stem if os.path.isfile(source) else source.absolute().name
    return Path("runs") / (name or "photos")


def _export_path(run: Run, format: str) -> Path:
    from quoin.tools.export.config import MESH_FORMATS

    return run.path / "exports" / (f"{run.name}.{format}" if format in MESH_FORMATS else format)


if __name__ == "__main__":
    main()
