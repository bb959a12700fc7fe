"""Where a run lives: in a folder, or at a URL with a working folder on this machine.

Every process writes files into its working folder. In a folder that is all. At a URL, whoever did the work *hands in*
the files that a stage leaves (puts them, and then a receipt of them), and whoever commits writes the receipt into the
manifest: so the put of run.json stays the only one that counts, and readers anywhere know which bytes they must get.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zarr

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.atomic import aside, disk_error, write_atomic
from quoin.pipeline.storage.cache import Cache, alone, cache_folder, scratch
from quoin.pipeline.storage.layout import BESIDE, Leaf, matching, patterns, sha256_of
from quoin.pipeline.storage.object_store import Bucket, url_of

RUN_FILE = "run.json"
SCENE = "scene.zarr"
AT_ONCE = 8  # files on the way


class Home:
    """The place where a run lives: here a folder, in which every process writes as well.

    ``address`` is for people and for other processes; ``folder`` is where this process writes files.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.address = folder, str(folder)

    def read_record(self) -> bytes | None:
        """run.json, or None where there is no run."""
        try:
            return (self.folder / RUN_FILE).read_bytes()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG):
                return None
            raise QuoinError(
                f"run.json cannot be read: {error}", where=self.folder, do="restore it or start anew"
            ) from None

    def write_record(self, data: bytes) -> None:
        """Put run.json: the commit."""
        write_atomic(self.folder / RUN_FILE, data)

    def make(self) -> None:
        """Make room for a new run; QuoinError where something else is there."""
        folder = self.folder
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise QuoinError("The output folder is not empty and holds no run", where=folder, do="choose another --out")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, folder) from error

    def adopt(self, run_id: str) -> None:
        """Have a working folder for this run, and nothing of another one in it."""
        del run_id

    def open_scene(self, commit: Callable[[], str | None]) -> zarr.Group:
        """scene.zarr; ``commit()`` names the commit that its photos are of."""
        del commit
        return arrays.open_store(self.folder / SCENE)

    def hand_in(self, stage: str) -> None:
        """Put what ``stage`` left in the working folder."""
        del stage

    def receipt(self, stage: str) -> dict[str, Leaf]:
        """What was handed in of ``stage``."""
        del stage
        return {}

    def file(self, name: str, leaf: Leaf | None, commit: str) -> Path:
        """A file of the run to be read: as ``commit`` left it where that names it, else as it is here."""
        del leaf, commit
        return self.folder / name

    def share(self, name: str, before: str | None) -> None:
        """Put a working file now, for another machine to go on with; what was there is kept as ``before``."""
        del name, before

    def bring(self, name: str) -> None:
        """Have a shared working file here as it is at home; where there is none, there is none here."""
        del name

    def catch_up(self, name: str) -> None:
        """Have a working file that only grows here as it is at home, unless more of it is here."""
        del name

    @contextlib.contextmanager
    def deposit(self, name: str) -> Iterator[Path]:
        """A path to write to: what was written there is a working file at home, whole, and nowhere else."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as part:
            yield part

    @contextlib.contextmanager
    def borrowed(self, name: str) -> Iterator[Path]:
        """A working file as it is at home, to be read; it may not exist."""
        yield self.folder / name

    def remove(self, name: str) -> None:
        """Remove a working file or folder, here and at home."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def put_beside(self, since: float) -> None:
        """Put what commands beside the stages have written since then (seconds since the epoch)."""
        del since


class Remote(Home):
    """A run in object storage. What is read of it is kept in the cache of this machine."""

    def __init__(self, url: str) -> None:
        super().__init__(cache_folder("runs", url))
        self.address = url
        self.bucket = Bucket(url)
        self.cache = Cache(cache_folder("objects", url).parent)
        self._cached = cache_folder("objects", url).name
        self._stamp: str | None = None  # of run.json as this process last saw it

    def read_record(self) -> bytes | None:
        found = self.bucket.look(RUN_FILE)
        self._stamp = None if found is None else found.stamp
        return None if found is None else found.data

    def write_record(self, data: bytes) -> None:
        stamp = self.bucket.put_if(RUN_FILE, data, self._stamp)
        if stamp is None:
            raise QuoinError(
                "Another quoin has changed this run meanwhile, so this one stops",
                where=self.address,
                do="wait for it, or stop it and run quoin resume",
            )
        self._stamp = stamp

    def make(self) -> None:
        if not self.bucket.is_empty():
            raise QuoinError("There is something here, and it is no run", where=self.address, do="choose another --out")

    def adopt(self, run_id: str) -> None:
        note = self.folder / "run-id"
        try:
            with alone(self.folder):  # workers of one machine come at the same time
                if note.exists() and note.read_text(encoding="ascii") == run_id:
                    return
                if self.folder.exists():
                    shutil.rmtree(self.folder)
                self.folder.mkdir()
                write_atomic(note, run_id.encode())
        except OSError as error:
            raise disk_error(error, self.folder) from error

    def open_scene(self, commit: Callable[[], str | None]) -> zarr.Group:
        from quoin.pipeline.storage.remote_arrays import open_scene

        def named() -> str | None:
            return None if (name := commit()) is None else f"{self._cached}/{name}"

        return open_scene(f"{self.address}/{SCENE}", self.cache, named)

    def hand_in(self, stage: str) -> None:
        wanted = patterns(stage)
        if not wanted:
            return
        before, names = self.receipt(stage), list(matching(self.folder, wanted))
        leaves = dict(zip(names, self._put(names), strict=True))
        for gone in sorted(before.keys() - leaves.keys()):
            self.bucket.remove(gone)
        receipt = {name: leaf.model_dump() for name, leaf in leaves.items()}
        self.bucket.put(_receipt_name(stage), json.dumps(receipt, indent=1).encode())

    def receipt(self, stage: str) -> dict[str, Leaf]:
        if not patterns(stage):
            return {}
        data = self.bucket.read(_receipt_name(stage))
        return {} if data is None else {name: Leaf.model_validate(leaf) for name, leaf in json.loads(data).items()}

    def file(self, name: str, leaf: Leaf | None, commit: str) -> Path:
        here = self.folder / name
        if leaf is None or (here.is_file() and sha256_of(here) == leaf.sha256):
            return here

        def fetch(path: Path) -> None:
            found = self.bucket.fetch(name, path)
            if found != leaf.sha256:
                raise QuoinError(
                    f"This file is {'gone' if found is None else 'not the one that was committed'}",
                    where=f"{self.address}/{name}",
                    do="redo its stage with quoin resume --force",
                )

        return self.cache.file(f"{self._cached}/{commit}/{name}", fetch)

    def share(self, name: str, before: str | None) -> None:
        if before is not None:
            self.bucket.copy(name, before)
        self.bucket.put_file(name, self.folder / name)

    def bring(self, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path) as part:
            if self.bucket.fetch(name, part) is None:
                path.unlink(missing_ok=True)

    def catch_up(self, name: str) -> None:
        here, there = self.folder / name, self.bucket.facts(name)
        if there is not None and there[0] > (here.stat().st_size if here.exists() else 0):
            self.bring(name)

    @contextlib.contextmanager
    def deposit(self, name: str) -> Iterator[Path]:
        with self._passing(name) as path:
            yield path
            self.bucket.put_file(name, path)

    @contextlib.contextmanager
    def borrowed(self, name: str) -> Iterator[Path]:
        with self._passing(name) as path:
            self.bucket.fetch(name, path)
            yield path

    @contextlib.contextmanager
    def _passing(self, name: str) -> Iterator[Path]:
        """A file here that nobody else has, for as long as it is on its way."""
        with scratch(self.folder) as folder:
            yield folder / name.rpartition("/")[2]

    def remove(self, name: str) -> None:
        super().remove(name)
        self.bucket.remove(name)

    def put_beside(self, since: float) -> None:
        names = []
        for name in matching(self.folder, BESIDE):
            with contextlib.suppress(FileNotFoundError):
                if (self.folder / name).stat().st_mtime >= since:
                    names.append(name)
        self._put(names)

    def _put(self, names: Iterable[str]) -> list[Leaf]:
        def one(name: str) -> Leaf:
            path = self.folder / name
            leaf = Leaf(sha256=sha256_of(path), n_bytes=path.stat().st_size)
            self.bucket.put_file(name, path)
            return leaf

        with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="put") as pool:
            return list(pool.map(one, names))


def home_of(place: str | Path) -> Home:
    """The home at a path or a URL."""
    url = url_of(place)
    return Home(Path(place).absolute()) if url is None else Remote(url)


def _receipt_name(stage: str) -> str:
    return f"work/handed_in/{stage}.json"
