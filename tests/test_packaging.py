"""What is installed is complete: data files travel with the wheel, and what the code imports is declared."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
FOLDERS = sorted(link.name for link in (SOURCE / "quoin").iterdir() if link.is_symlink())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# distribution -> module, where the two differ
MODULES = {
    "fast-simplification": "fast_simplification",
    "grpcio": "grpc",
    "open3d-cpu": "open3d",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "pyyaml": "yaml",
}
OPTIONAL = {"viser", "onnxruntime", "obstore", "triton"}  # asked for by extras; comes with torch's CUDA build


def declared() -> set[str]:
    names = (re.match(r"[\w.-]+", line) for line in PROJECT["project"]["dependencies"])
    return {name.group().lower() for name in names if name}


def imported() -> dict[str, str]:
    """Every top-level module the code imports, with a file that does."""
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found.update({alias.name.split(".")[0]: str(path) for alias in node.names})
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found[node.module.split(".")[0]] = str(path)
    return {name: path for name, path in found.items() if name not in {*sys.stdlib_module_names, "quoin"}}


def test_every_import_is_a_declared_dependency():
    modules = {MODULES.get(name, name) for name in declared()} | OPTIONAL
    missing = {name: path for name, path in imported().items() if name not in modules}
    assert not missing


def test_every_declared_dependency_is_imported():
    bounds = {"fastapi"}  # Prefect's, named for its upper bound
    assert {MODULES.get(name, name) for name in declared()} - bounds <= imported().keys()


def test_every_dependency_is_pinned_without_a_local_build():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    assert declared() <= {name.lower().replace("_", "-") for name in pins}
    assert not [pin for pin in pins.values() if "+" in pin], "a local build such as +cpu is on no public index"


def test_data_files_travel_with_the_package():
    listed = subprocess.run(["git", "ls-files", *FOLDERS], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    data = [path for path in listed.stdout.splitlines() if not path.endswith(".py")]
    assert data
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    kept = {
        path.relative_to(SOURCE / "quoin").as_posix()
        for package, globs in patterns.items()
        for glob in globs
        for path in (SOURCE / package.replace(".", "/")).glob(glob)
    }
    assert not [path for path in data if path not in kept]


def test_help_imports_nothing_heavy():
    """Half a second is what `quoin --help` may take; counting imports says it without a clock."""
    code = "import sys, quoin.flows.cli.app; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=SOURCE, capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "ray", "prefect", "open3d", "pycolmap", "trimesh", "scipy", "skimage", "zarr", "pyarrow", "PIL"}
    heavy |= {"av"}
    assert not heavy & set(out.split())


def test_the_distribution_is_one_package(tmp_path):
    """A wheel puts ``quoin`` into site-packages, all of it, and nothing else."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    copy = tmp_path / "checkout"  # what a build leaves in a checkout stays out of ours
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(tmp_path), str(copy)], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"quoin"}
    code = {name for name in listed.stdout.splitlines() if name.endswith(".py") and name.split("/")[0] in FOLDERS}
    assert {f"quoin/{name}" for name in code if (ROOT / name).exists()} <= set(names)
    assert {"quoin/py.typed", "quoin/configs/presets/default.yaml"} <= set(names)


def test_folders_of_the_user_stand_in_no_way(tmp_path):
    """quoin and the processes it starts work where the current folder has modules of the names of our folders."""
    for name in ("pipeline.py", "flows.py", "cluster.py", "quoin.py"):
        (tmp_path / name).write_text("raise ImportError('the wrong one')\n")
    for name in ("configs", "stages", "pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    (tmp_path / "work").mkdir()
    script = tmp_path / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        """
from pathlib import Path

from quoin.flows.settings import load_settings
from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap.subprocess_call import run_in_subprocess

load_settings()
try:
    run_in_subprocess("no such step", {}, Path("work"))
except QuoinError as error:
    print(error)
"""
    )
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "the wrong one" not in done.stdout + done.stderr
    assert "no such step" in done.stdout, done.stderr
