"""The page in a real browser: its scripts run under its policy, the mesh appears, and nothing is fetched."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from quoin.pipeline.core.events import Reporter
from quoin.stages.report.config import ReportConfig
from quoin.stages.report.stage import write_html_report
from tests.fixtures.browser import CHROMIUM, CHROMIUM_FLAGS
from tests.stages.report.scene import HOSTILE, make_run


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_shows_the_mesh_and_refuses_nothing_of_ours(tmp_path: Path):
    made = make_run(tmp_path / "made", names=HOSTILE)
    page = write_html_report(made, ReportConfig(n_views=2, view_edge_px=96), Reporter()).path
    command = [str(CHROMIUM), *CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'profile'}", f"file://{page}"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    dom = shown.stdout
    assert 'class="status"' not in dom  # the viewer takes its "loading" away when the mesh stands
    assert re.search(r'<div class="tools">', dom)
    assert re.search(r'href="blob:[^"]+" download="mesh.glb"', dom)
    assert '<form class="filter">' in dom  # the table's script has run
    console = [line for line in shown.stderr.splitlines() if "CONSOLE" in line]
    assert not any("Content Security Policy" in line or "Uncaught" in line for line in console), console
