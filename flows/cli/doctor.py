"""``quoin doctor``: what is installed, which device there is, which fast paths are active, what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from quoin import __version__
from quoin.fields.compile import cache_folder, compiler_missing, cpp_compiler
from quoin.flows.cli.terminal import size
from quoin.flows.prefect.server import answers
from quoin.pipeline.core.errors import first_line

SYSTEM_LIBRARIES = "libusb-1.0-0 libgl1 libegl1 libx11-6 libudev1 libgomp1 libidn2-0"  # what Open3D's wheel needs
PACKAGES = ("torch", "pycolmap", "zarr", "numpy", "pyarrow", "trimesh", "ray", "prefect", "fastapi", "pillow")


@dataclass(frozen=True)
class Finding:
    """One line: whether it is well (None: neither good nor bad), and what to do where it is not."""

    topic: str
    text: str
    well: bool | None = None
    do: str = ""


def print_report() -> None:
    """Print all findings; what can be done about a problem stands below it."""
    marks = {True: "ok  ", False: "no  ", None: "    "}
    for finding in findings():
        print(f"{marks[finding.well]}{finding.topic:<16}{finding.text}")
        if finding.do:
            print(f"{'':20}→ {finding.do}")


def findings() -> Iterator[Finding]:
    """All findings, one at a time; a check that breaks is a finding itself."""
    for check in (machine, packages, device, compiler, training, grids, poses, geometry, monitoring):
        yield from _safely(check)


def _safely(check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:
        yield Finding(check.__name__, f"{type(error).__name__}: {error}", False)


def machine() -> Iterator[Finding]:
    """quoin, Python, cores, memory, disk."""
    yield Finding("quoin", f"{__version__} on Python {platform.python_version()}, {platform.platform()}")
    memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("machine", f"{cores} cores, {size(memory_bytes)} memory")
    disk = shutil.disk_usage(Path.cwd())
    enough = disk.free > 5 << 30
    yield Finding("disk here", f"{size(disk.free)} free", enough, "" if enough else "free some space")


def packages() -> Iterator[Finding]:
    """Versions of what quoin stands on."""
    versions = []
    for name in PACKAGES:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "not installed", False, f"{Path(sys.executable).name} -m pip install {name}")
    yield Finding("packages", ", ".join(versions))


def device() -> Iterator[Finding]:
    """What trains."""
    import torch

    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            facts = torch.cuda.get_device_properties(index)
            yield Finding("device", f"cuda:{index} {facts.name}, {size(facts.total_memory)}", True)
    else:
        kind = torch.backends.cpu.get_cpu_capability()
        yield Finding("device", f"cpu ({kind}, {torch.get_num_threads()} threads); no CUDA device is usable")


def compiler() -> Iterator[Finding]:
    """Whether torch.compile works, tried on a small function."""
    import torch

    if torch.cuda.is_available():
        where, needs = "cuda", "a working Triton (it comes with torch)"
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


def training() -> Iterator[Finding]:
    """Which code a training step runs, and what of it is kept compiled."""
    import torch

    where = "cuda" if torch.cuda.is_available() else "cpu"
    reason = compiler_missing(where)
    kernels = {"cuda": "compiled by Triton", "cpu": f"compiled by {cpp_compiler()}, for all cores"}[where]
    steps = f"steps on {where}: {kernels if reason is None else f'not compiled, {reason}'}"
    yield Finding("training", steps, reason is None)
    folder = cache_folder()
    n_bytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    yield Finding("compiled code", f"{size(n_bytes)} kept in {folder}" if n_bytes else f"none yet in {folder}")


def grids() -> Iterator[Finding]:
    """Which code reads hash grids where training runs."""
    import torch

    from quoin.fields.encoding.hash_grid import reads_by_triton

    if not torch.cuda.is_available():
        yield Finding("hash grids", "read by PyTorch on cpu (on cuda by Triton kernels)")
    elif reads_by_triton("cuda"):
        yield Finding("hash grids", "read by Triton kernels on cuda", True)
    else:
        yield Finding("hash grids", "read by PyTorch on cuda, for lack of Triton: slower", False, "pip install triton")


def poses() -> Iterator[Finding]:
    """What pycolmap can use."""
    import pycolmap

    if pycolmap.has_cuda:
        yield Finding("pycolmap", "uses CUDA for features and matching", True)
    else:
        yield Finding("pycolmap", "runs on the CPU (pycolmap-cuda12, in its stead, uses CUDA)")


def geometry() -> Iterator[Finding]:
    """Whether Open3D loads; its wheel needs libraries of the system."""
    try:
        import open3d
    except (ImportError, OSError) as error:
        yield Finding("open3d", f"does not load: {error}", False, f"apt-get install {SYSTEM_LIBRARIES}")
    else:
        yield Finding("open3d", f"{open3d.__version__} loads", True)


def monitoring() -> Iterator[Finding]:
    """Whether a Prefect server is named and answers."""
    url = os.environ.get("PREFECT_API_URL")
    if not url:
        yield Finding("prefect server", "none named (PREFECT_API_URL); quoin ui starts one")
    elif answers(url):
        yield Finding("prefect server", f"answers at {url}", True)
    else:
        do = "start it with quoin ui, or unset PREFECT_API_URL"
        yield Finding("prefect server", f"does not answer at {url}", False, do)
