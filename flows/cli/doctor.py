"""``quoin doctor``: checks of the installation, and what to do about each problem."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quoin.fields.device import cpp_compiler, inductor_cache_folder, missing_compiler
from quoin.flows.cli.version import version_text
from quoin.flows.prefect.server import check_prefect_server
from quoin.pipeline.core.errors import QuoinError, first_line
from quoin.pipeline.core.formatting import format_bytes

SYSTEM_LIBRARIES = "libusb-1.0-0 libgl1 libegl1 libx11-6 libudev1 libgomp1 libidn2-0"  # what Open3D's wheel needs
PACKAGES = ("torch", "pycolmap", "zarr", "numpy", "pyarrow", "trimesh", "ray", "prefect", "fastapi", "pillow")


@dataclass(frozen=True)
class Finding:
    """One line of the report: ``is_ok`` is None for plain facts; ``hint`` is what to do about a problem."""

    topic: str
    text: str
    is_ok: bool | None = None
    hint: str = ""


def print_report() -> None:
    """Print all findings, each problem with its hint below."""
    marks = {True: "ok  ", False: "no  ", None: "    "}
    for finding in run_checks():
        print(f"{marks[finding.is_ok]}{finding.topic:<16}{finding.text}")
        if finding.hint:
            print(f"{'':20}→ {finding.hint}")


def run_checks() -> Iterator[Finding]:
    """The findings of all checks; a check that raises gives a finding, too."""
    for check in (
        check_machine,
        check_packages,
        check_device,
        check_compiler,
        check_training,
        check_hash_grids,
        check_pycolmap,
        check_open3d,
        check_prefect,
    ):
        yield from _run_check(check)


def _run_check(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        yield Finding(check.__name__, f"{type(error).__name__}: {error}", False)


def check_machine() -> Iterator[Finding]:
    """quoin, Python, cores, memory, disk."""
    yield Finding(
        "quoin", f"{version_text().removeprefix('quoin ')} on Python {platform.python_version()}, {platform.platform()}"
    )
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", f"{cores} cores, {format_bytes(memory_bytes)} memory")
    disk = shutil.disk_usage(Path.cwd())
    is_enough = disk.free > 5 << 30
    yield Finding("disk here", f"{format_bytes(disk.free)} free", is_enough, "" if is_enough else "free some space")


def check_packages() -> Iterator[Finding]:
    """Versions of the main dependencies."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "not installed", False, f"{Path(sys.executable).name} -m pip install {name}")
    yield Finding("packages", ", ".join(versions))


def check_device() -> Iterator[Finding]:
    """The device that trains."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding("device", f"cuda:{index} {facts.name}, {format_bytes(facts.total_memory)}", True)
    else:
        kind = torch.backends.cpu.get_cpu_capability()
        yield Finding("device", f"cpu ({kind}, {torch.get_num_threads()} threads); no CUDA device is usable")


def check_compiler() -> Iterator[Finding]:
    """Whether torch.compile works, tested on a small function."""
    import torch

    if torch.cuda.is_available():
        where, needs = "cuda", "install a working Triton (it comes with torch)"
    else:
        where, needs = "cpu", "a C++ compiler: apt-get install g++"
        if shutil.which(os.environ.get("CXX", "g++")) is None and shutil.which("clang++") is None:
            yield Finding("torch.compile", "no C++ compiler: training is several times slower", False, needs)
            return
    values = torch.linspace(0, 1, 64, device=where)
    compiled = torch.compile(lambda x: torch.sin(x) * torch.exp(x))
    try:
        right = torch.allclose(compiled(values), torch.sin(values) * torch.exp(values), atol=1e-5)
    except Exception as error:
        yield Finding("torch.compile", f"does not work on {where}: {first_line(error)}", False, needs)
    else:
        yield Finding("torch.compile", f"works on {where}" if right else f"computes wrong values on {where}", right)


def check_training() -> Iterator[Finding]:
    """Whether training steps are compiled, and the size of the compile cache."""
    import torch

    where = "cuda" if torch.cuda.is_available() else "cpu"
    reason = missing_compiler(where)
    kernels = {"cuda": "compiled by Triton", "cpu": f"compiled by {cpp_compiler()}, for all cores"}[where]
    steps = f"steps on {where}: {kernels if reason is None else f'not compiled, {reason}'}"
    yield Finding("training", steps, reason is None)
    folder = inductor_cache_folder()
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    yield Finding("compiled code", f"{format_bytes(n_bytes)} in {folder}" if n_bytes else f"none yet in {folder}")


def check_hash_grids() -> Iterator[Finding]:
    """Which implementation of hash grids training uses."""
    import torch

    from quoin.fields.encoding.hash_grid import uses_triton

    if not torch.cuda.is_available():
        yield Finding("hash grids", "read by PyTorch on cpu (on cuda by Triton kernels)")
    elif uses_triton("cuda"):
        yield Finding("hash grids", "read by Triton kernels on cuda", True)
    else:
        yield Finding("hash grids", "read by PyTorch on cuda without Triton: slower", False, "pip install triton")


def check_pycolmap() -> Iterator[Finding]:
    """Whether pycolmap uses CUDA."""
    import pycolmap

    if pycolmap.has_cuda:
        yield Finding("pycolmap", "uses CUDA for features and matching", True)
    else:
        yield Finding("pycolmap", "runs on the CPU (pycolmap-cuda12 instead would use CUDA)")


def check_open3d() -> Iterator[Finding]:
    """Whether Open3D loads; its wheel needs system libraries."""
    try:
        import open3d
    except (ImportError, OSError) as error:
        yield Finding("open3d", f"does not load: {error}", False, f"apt-get install {SYSTEM_LIBRARIES}")
    else:
        yield Finding("open3d", f"{open3d.__version__} loads", True)


def check_prefect() -> Iterator[Finding]:
    """Whether PREFECT_API_URL names a Prefect server that responds."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        yield Finding("prefect server", "none named (PREFECT_API_URL); quoin ui starts one")
        return
    try:
        check_prefect_server(url, "start it with quoin ui, or unset PREFECT_API_URL")
        yield Finding("prefect server", f"answers at {url}", True)
    except QuoinError as error:
        yield Finding("prefect server", error.what, False, error.hint or "")
