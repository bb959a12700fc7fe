"""The commands of ``quoin``. Heavy modules are imported inside the commands, so that ``quoin --help`` is fast."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, CycloptsError

from quoin.flows.cli.errors import exit_on_error, exit_process, install_sigterm_handler
from quoin.flows.cli.options import (
    DisplayOptions,
    Flag,
    Pair,
    ResultOptions,
    RunOptions,
    default_export_path,
    default_run_folder,
)
from quoin.flows.cli.service_commands import doctor, runs, show_settings, ui
from quoin.flows.cli.version import version_text
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage.object_store import storage_url

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
    """Reconstruct a mesh from a folder of photos, from videos, or from both.

    Parameters
    ----------
    photos
        folder of photos and videos, or a video; or a URL (s3://, gs://, az://)
    clips
        more videos
    out
        folder or URL of the run; by default runs/<name of the photo folder>
    """
    from quoin.flows.cli.options import print_summary
    from quoin.flows.session import split_sources, start_run

    run_options.check()
    settings = result_options.settings()
    source, other_clips = split_sources([photos, *clips])
    with start_run(source, out or default_run_folder(source), settings, result_options.seed, other_clips) as run:
        run_options.execute(run, settings)
        print_summary(run, quiet=run_options.quiet or run_options.json)


@app.command(sort_key=2)
def resume(run: str, /, *, run_options: RunOptions = RunOptions()) -> None:
    """Resume a run that was stopped.

    Parameters
    ----------
    run
        folder or URL of the run
    """
    from quoin.flows.cli.options import print_summary
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
    """Estimate the blocks, time, memory and disk of a reconstruction. Finds the cameras, trains nothing.

    Parameters
    ----------
    target
        folder of photos and videos, a video, or a run
    clips
        more videos
    out
        folder or URL of the run, as for reconstruct, which continues from there
    workers
        number of machines or GPUs to plan for, each like the one here
    """
    from quoin.fields.device import pick_device
    from quoin.flows.cli.plan import print_plan
    from quoin.flows.session import resume_run, run_settings, split_sources, start_run
    from quoin.pipeline.storage.run import Run

    run_options.check()
    if workers < 1:
        raise QuoinError("The number of workers must be at least 1", where=f"--workers {workers}")
    if Run.exists(target):
        opened_run = resume_run(target)
    else:
        settings = result_options.settings()
        photos, other_clips = split_sources([target, *clips])
        opened_run = start_run(photos, out or default_run_folder(photos), settings, result_options.seed, other_clips)
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
    """Score a run against a reference surface (precision, recall, F, Chamfer, pose errors) or held-out photos.

    Parameters
    ----------
    run
        folder or URL of the run
    truth
        reference surface: a mesh or points (PLY, OBJ, ...)
    views
        render the held-out photos (partition.hold_out_every) and compute PSNR and SSIM
    cameras
        reference cameras in the frame of the truth: transforms.json, a COLMAP model, .camera files, or a CSV of
        name,x,y,z; by default those given with --poses
    distance
        threshold of precision, recall and F, may be repeated; by default 0.25, 0.5 and 1 % of the truth's diagonal
    device
        device that renders
    """
    from quoin.flows.cli.evaluate import evaluate_run
    from quoin.flows.session import resume_run

    with resume_run(run) as opened, display_options.reporter(opened) as report:
        evaluate_run(opened, truth, cameras, distance, report, views=device if views else None)


@app.command(sort_key=5)
def export(
    run: str, /, *, format: str, out: Path | None = None, display_options: DisplayOptions = DisplayOptions()
) -> None:
    """Export the mesh or the cameras of a run for other programs.

    Parameters
    ----------
    run
        folder or URL of the run
    format
        ply, glb, obj, colmap or nerfstudio
    out
        file or folder to write; by default in the folder exports/ of the run
    """
    from quoin.flows.session import resume_run
    from quoin.tools.export import export_run

    with resume_run(run) as opened, display_options.reporter(opened) as report:
        exported = export_run(opened, format, out or default_export_path(opened, format), report)
        print(opened.storage.public_path(exported.path))


@app.command(sort_key=6)
def render(
    run: str,
    /,
    *,
    path: Literal["orbit", "photos"] = "orbit",
    what: Literal["colour", "normals", "depth"] = "colour",
    out: Path | None = None,
    size: Annotated[tuple[int, int], Pair] = (640, 360),
    seconds: float = 6.0,
    fps: int = 24,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    display_options: DisplayOptions = DisplayOptions(),
) -> None:
    """Render a video of the trained surface.

    Parameters
    ----------
    run
        folder or URL of the run
    path
        path of the camera: orbit around the scene, or along the photos
    what
        what the video shows
    out
        a video (.mp4), or a folder for single images; by default films/<path>.mp4 in the run
    size
        width and height in pixels, even numbers
    seconds
        length of the video
    fps
        frames per second
    device
        device that renders
    """
    from quoin.flows.cli.evaluate import render_run
    from quoin.flows.session import resume_run
    from quoin.pipeline.core.config import validate_config
    from quoin.tools.render.films import FilmConfig

    film_options = {"path": path, "output": what, "width": size[0], "height": size[1], "seconds": seconds}
    config = validate_config(FilmConfig, {**film_options, "frames_per_s": fps})
    with resume_run(run) as opened, display_options.reporter(opened) as report:
        render_run(opened, config, out, device, report)


@app.command(sort_key=7)
def view(run: str, /, *, port: int = 0, browser: bool = True) -> None:
    """View a run in the browser: cameras, photos, points, mesh. The run may still be going.

    Parameters
    ----------
    run
        folder or URL of the run
    port
        port of the viewer on this machine (loopback only); 0 picks a free one
    browser
        open the browser
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
    size: Annotated[tuple[int, int], Pair] = (800, 600),
    quarters: int = 16,
    plain: Annotated[bool, Flag] = False,
    wild: Annotated[bool, Flag] = False,
    preset: str | None = None,
    set: Annotated[tuple[str, ...], Flag] = (),
    seed: int = 0,
    run_options: RunOptions = RunOptions(),
) -> None:
    """Generate photos of a synthetic scene, reconstruct it, and print the score against the true surface.

    Parameters
    ----------
    out
        folder for the photos and the run
    scene
        landmark: a building seen from all around; room: a furnished room with bare walls; town: seen from the air
    photos
        number of photos of the landmark or the room; a town takes about 21 for each quarter
    size
        width and height of a photo in pixels
    quarters
        size of the town: number of quarters of 38 m by 38 m, each about one block
    plain
        landmark with whitewashed walls instead of stone and brick: harder, because there is little to match
    wild
        landmark as in internet photos: crowds, different exposures, tints and tone curves, more sky
    preset
        name of a preset, or a YAML file; by default that of the scene (configs/demos)
    set
        setting as section.key=value, overrides the preset; may be repeated
    seed
        seed of the scene and of the reconstruction
    """
    from quoin.flows.cli.demo import run_demo, scene_settings

    run_options.check()
    if storage_url(out):
        raise QuoinError("The demo needs a folder, not a URL", where=out, hint="give a folder with --out")
    run_demo(
        out,
        {"n_photos": photos, "width": size[0], "height": size[1], **scene_settings(scene, quarters, plain, wild)},
        ResultOptions(preset=preset or ("town" if scene == "town" else "demo"), set=set, seed=seed),
        run_options,
    )


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
    """Submit a reconstruction to a Prefect work pool or a Ray cluster, and print where to watch it.

    Parameters
    ----------
    photos
        folder of photos and videos, or a video: its path on the worker, or a URL
    clips
        more videos
    to
        name of a work pool, or address of a Ray cluster (ray://… or http://…)
    out
        folder of the run on the worker, or its URL; by default runs/<name of the photo folder>
    device
        device that trains; by default what the deployment sets, and so for executor, address and gpu_share
    executor
        inline: blocks one after the other in the worker; ray: on Ray actors
    address
        address of a running Ray cluster (auto or host:port) for --executor ray; without one, the worker starts Ray
    gpu_share
        share of a GPU and of its memory for each Ray actor: 0.5 puts two on each GPU
    watch
        follow the run until it ends
    """
    from quoin.flows.prefect.submit import flow_parameters, submit_run

    out = out or str(default_run_folder(Path(photos)))
    where = {"device": device, "executor": executor, "address": address, "gpu_share": gpu_share}
    parameters = flow_parameters(
        photos, out, result_options.preset, result_options.overrides(), result_options.seed, list(clips), **where
    )
    return submit_run(to, parameters, watch=watch)


app.command(runs, sort_key=9)
app.command(show_settings, name="settings", sort_key=9)
app.command(doctor, sort_key=9)
app.command(ui, sort_key=10)


def main() -> None:
    """Entry point of the command ``quoin``."""
    install_sigterm_handler()
    exit_process(run_command(sys.argv[1:]))


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit status: 0 done, 1 crashed, 2 refused, 3 partial, 130 and 143 stopped."""
    try:
        with exit_on_error():
            try:
                return app(arguments, exit_on_error=False, print_error=False, result_action="return_value") or 0
            except CycloptsError as error:
                raise QuoinError(" ".join(str(error).split()).rstrip("."), hint="see quoin --help") from None
    except SystemExit as end:
        return int(end.code or 0)


if __name__ == "__main__":
    main()
