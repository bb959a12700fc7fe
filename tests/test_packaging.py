"""What is installed is complete: data files travel with the wheel, and what the code imports is declared."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

from quoin import __version__

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
OPTIONAL = {"viser", "onnxruntime", "obstore", "triton", "IPython"}  # of extras; with torch's CUDA build; in notebooks


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


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> Path:
    """A clean checkout of what is here; what a build leaves behind stays out of ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    copy = tmp_path_factory.mktemp("packaging") / "checkout"
    for name in listed.stdout.splitlines():
        if (ROOT / name).exists() and not name.startswith(("tests/", "docs/", "benchmarks/")):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name, follow_symlinks=False)
    return copy


def build_wheel(sources: Path, out: Path) -> Path:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--wheel-dir", str(out), str(sources)], check=True)
    (wheel,) = out.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def commit(sources) -> str:
    """The commit of the checkout in ``sources``."""
    me = ["-c", "user.name=quoin", "-c", "user.email=quoin@localhost"]
    for command in (["init", "--quiet"], ["add", "."], [*me, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=sources, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=sources, capture_output=True, text=True, check=True)
    return head.stdout[:7]


@pytest.fixture(scope="module")
def wheel(sources, commit, tmp_path_factory) -> Path:
    return build_wheel(sources, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """A fresh environment with the wheel in it; our dependencies are seen, our editable quoin is not."""
    folder = tmp_path_factory.mktemp("fresh")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install"]
    subprocess.run([*pip, "--quiet", "--no-deps", "--no-index", str(wheel)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # whose own .pth are not read
    return folder / "bin"


@pytest.fixture
def hostile_folder(tmp_path) -> Path:
    """A folder of a user with modules of the names of our folders."""
    for name in ("pipeline.py", "flows.py", "cluster.py"):
        (tmp_path / name).write_text("raise ImportError('the wrong one')\n")
    for name in ("configs", "stages", "pipeline"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise ImportError('the wrong one')\n")
    return tmp_path


def call(folder: Path, *command: str | Path, **environment: str) -> str:
    """What ``command`` says in ``folder``, without our source on the path."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | environment
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert "the wrong one" not in done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_distribution_is_one_package(wheel, commit):
    """A wheel puts ``quoin`` into site-packages, all of it, and nothing else."""
    archive = zipfile.ZipFile(wheel)
    names = archive.namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"quoin"}
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    code = {name for name in listed.splitlines() if name.endswith(".py") and name.split("/")[0] in FOLDERS}
    assert {f"quoin/{name}" for name in code if (ROOT / name).exists()} <= set(names)
    assert {"quoin/py.typed", "quoin/configs/presets/default.yaml"} <= set(names)
    assert archive.read("quoin/commit.txt").decode().startswith(commit)


def test_a_wheel_without_git_is_built_and_tells_its_version_only(sources, commit, tmp_path):
    bare = tmp_path / "sources"
    shutil.copytree(sources, bare, symlinks=True, ignore=shutil.ignore_patterns(".git", "build", "*.egg-info"))
    assert "quoin/commit.txt" not in zipfile.ZipFile(build_wheel(bare, tmp_path)).namelist()


def test_an_installed_quoin_works_in_any_folder(installed, commit, hostile_folder):
    assert call(hostile_folder, installed / "quoin", "--version") == f"quoin {__version__} ({commit})\n"
    assert "reconstruct" in call(hostile_folder, installed / "quoin", "--help")
    assert "There is no quoin run here" in call(hostile_folder, installed / "quoin", "resume", "stages")
    code = "import quoin; print(quoin.__file__, quoin.open_run, quoin.load_settings('draft').train.steps)"
    said = call(hostile_folder, installed / "python", "-c", code)
    assert said.startswith(str(installed.parent))
    assert said.endswith(" 400\n")


@pytest.mark.slow
def test_an_installed_quoin_works_in_ray_workers_and_for_prefect(installed, hostile_folder):
    script = """
import ray
from prefect.flows import load_flow_from_entrypoint

@ray.remote
def where():
    import quoin.stages.train.stage
    import quoin.pipeline.storage.run
    return quoin.__file__

ray.init(num_cpus=1, include_dashboard=False)
print(ray.get(where.remote()))
print("flow", load_flow_from_entrypoint("quoin.flows.prefect.flow.reconstruct_flow").name)
"""
    (hostile_folder / "script.py").write_text(script)
    said = call(hostile_folder, installed / "python", "script.py")
    assert str(installed.parent / "lib") in said
    assert "flow reconstruct" in said


def test_folders_of_the_user_stand_in_no_way(hostile_folder):
    """A child process of quoin, too, takes our modules and not the user's."""
    (hostile_folder / "quoin.py").write_text("raise ImportError('the wrong one')\n")
    (hostile_folder / "work").mkdir()
    script = hostile_folder / "elsewhere" / "script.py"
    script.parent.mkdir()
    script.write_text(
        """
from pathlib import Path

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.pose.colmap.subprocess_call import run_in_subprocess

try:
    run_in_subprocess("no such step", {}, Path("work"))
except QuoinError as error:
    print(error)
"""
    )
    assert "no such step" in call(hostile_folder, sys.executable, script, PYTHONPATH=str(SOURCE))
