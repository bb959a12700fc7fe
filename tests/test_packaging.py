"""What is installed is complete: data files travel with the wheel, and what the code imports is declared."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "stages", "cluster", "flows", "configs")
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
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    found.update({alias.name.split(".")[0]: str(path) for alias in node.names})
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    found[node.module.split(".")[0]] = str(path)
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names and name not in PACKAGES}


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
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    data = [path for path in listed.stdout.splitlines() if not path.endswith(".py")]
    assert data
    patterns = PROJECT["tool"]["setuptools"]["package-data"]
    kept = {
        path.relative_to(ROOT).as_posix()
        for package, globs in patterns.items()
        for glob in globs
        for path in (ROOT / package).glob(glob)
    }
    assert not [path for path in data if path not in kept]


def test_help_imports_nothing_heavy():
    """Half a second is what `quoin --help` may take; counting imports says it without a clock."""
    code = "import sys, flows.cli; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    heavy = {"torch", "ray", "prefect", "open3d", "pycolmap", "trimesh", "scipy", "skimage", "zarr", "pyarrow", "PIL"}
    heavy |= {"av"}
    assert not heavy & set(out.split())
