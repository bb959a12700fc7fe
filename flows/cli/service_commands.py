"""The commands beside a reconstruction: runs, settings, doctor, ui. Heavy modules are imported inside them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from quoin.flows.cli.options import Flag


def runs(folder: Path = Path("runs"), /, *, clean: Annotated[bool, Flag] = False) -> None:
    """List the runs below a folder: how far each is, when it was worked on last, and its size on the disk.

    Parameters
    ----------
    folder
        folder that holds runs, or a run
    clean
        remove the scratch files of runs that are done: COLMAP's database, extracted frames, parts of the mesh
    """
    from quoin.flows.cli.runs import print_runs

    print_runs(folder, clean=clean)


def show_settings(
    section: str | None = None, /, *, preset: str = "default", json_schema: Annotated[bool, Flag] = False
) -> None:
    """List the settings that --set and presets change, each with its value, its range and its meaning.

    Parameters
    ----------
    section
        a stage or a part of one, such as train or train.losses; by default all
    preset
        whose values are shown
    json_schema
        print the JSON schema of all settings instead, for editors and forms
    """
    from quoin.flows.cli.settings_table import print_settings

    print_settings(section, preset, json_schema=json_schema)


def doctor() -> None:
    """Check the installation: versions, device, compiler, and which fast code paths are active."""
    from quoin.flows.cli.doctor import print_report

    print_report()


def ui(*, port: int = 4200, host: str = "127.0.0.1", name: tuple[str, ...] = ()) -> int:
    """Start a Prefect server on this machine to watch runs in the browser.

    Parameters
    ----------
    port
        port of the server on this machine
    host
        address that it listens on; 0.0.0.0 in a container, where others reach it
    name
        a further host name that requests may call it by, besides 127.0.0.1 and localhost; may be given several times
    """
    from quoin.flows.prefect.server import run_server

    return run_server(port, host, name)
