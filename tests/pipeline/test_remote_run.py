"""A run in object storage: as in a folder, from any machine; whatever fails, only what was committed counts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.config import StageConfig, StageResult
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.scene import posed_images
from quoin.pipeline.storage import arrays
from quoin.pipeline.storage.disk import write_atomic
from quoin.pipeline.storage.object_store import Bucket
from quoin.pipeline.storage.run import Run
from tests.fixtures.stage_of import stage_of


class Size(StageConfig):
    size: int = 1


class Sum(StageResult):
    total: float


CALLS: list[str] = []


@stage_of("pose", needs=(), version=1, result=Sum)
def first(run: Run, config: Size, report: Reporter) -> Sum:
    """Arrays, photos, and files in folders."""
    CALLS.append("pose")
    values = np.arange(6.0) * config.size
    arrays.write_array(run.scene, "poses/points", values)
    posed_images.write_photo(run, 0, [np.full((4, 6, 3), config.size, np.uint8)], np.full((4, 6), 255, np.uint8))
    write_atomic(run.table("poses"), b"poses %d" % config.size)
    for number in range(config.size):
        folder = run.path / "sparse" / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "points.bin").write_bytes(b"points %d" % config.size)
    return Sum(total=float(values.sum()))


@stage_of("fuse", needs=("pose",), version=1, result=Sum)
def second(run: Run, config: Size, report: Reporter) -> Sum:
    """Reads what the first one left."""
    CALLS.append("fuse")
    run.require("pose")
    total = arrays.read_array(run.scene, "poses/points").sum() + posed_images.read_photo(run, 0).sum()
    table = run.file("tables/poses.parquet").read_bytes()
    write_atomic(run.path / "mesh.ply", b"mesh of " + table)
    return Sum(total=float(total) + config.size)


def go(run: Run, size: int = 2) -> float:
    CALLS.clear()
    first(run, Size(size=size), Reporter())
    return second(run, Size(size=size), Reporter()).total


EXPECTED = 30.0 + 4 * 6 * 3 * 2 + 2


def make(url: str) -> Run:
    return Run.create(url, photos="/photos", settings={}, seed=0)


def test_a_run_at_a_url_is_what_it_is_in_a_folder(bucket: str, tmp_path: Path):
    url = f"{bucket}/runs/castle"
    there, here = make(url), Run.create(tmp_path / "run", photos="/photos", settings={}, seed=0)
    assert go(there) == go(here) == EXPECTED
    assert there.location == url
    assert Path(there.location).name == "castle"
    paths = [path for path in here.path.rglob("*") if path.is_file() and path.name[0] != "."]  # locks are hidden
    files = {path.relative_to(here.path).as_posix() for path in paths}
    kept = {name for name, _, _ in Bucket(url).list_objects()}
    assert kept - files == {"work/uploaded/pose.json", "work/uploaded/fuse.json"}
    assert files <= kept
    assert go(Run.open(url)) == EXPECTED
    assert CALLS == [], "the second time there is nothing to do"


def test_another_machine_reads_what_was_committed(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"{bucket}/run"
    go(make(url))
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "elsewhere"))
    run = Run.open(url)
    assert not (run.path / "mesh.ply").exists()
    assert run.file("mesh.ply").read_bytes() == b"mesh of poses 2"
    assert run.file("mesh.ply").is_relative_to(tmp_path / "elsewhere")
    assert [path.read_bytes() for path in run.files("sparse/1")] == [b"points 2"]
    assert (posed_images.read_photo(run, 0) == 2).all()
    assert run.storage.public_path("mesh.ply") == f"{url}/mesh.ply"
    # it goes on there, and what is left of a larger earlier result goes
    assert go(run, size=1) == 15.0 + 72 + 1
    assert not [name for name, _, _ in Bucket(url).list_objects("sparse/1")]
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "home"))
    first_machine = Run.open(url)
    assert first_machine.file("mesh.ply").read_bytes() == b"mesh of poses 1", "its own working file is out of date"
    assert (posed_images.read_photo(first_machine, 0) == 1).all(), "and so is its cache of photos"


class Fault(Exception):
    """The storage as it fails."""


class Faults:
    """Counts what is written, and fails at the k-th time, before or after it is done."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import obstore
        from obstore.store import MemoryStore

        self.count, self.at, self.after = 0, -1, False
        stores: dict[str, MemoryStore] = {}
        put, put_async = MemoryStore.put, obstore.put_async

        def due() -> bool:
            self.count += 1
            return self.count == self.at

        def fail_put(store, *args, **kwargs):
            now = due()
            try:
                return None if now and not self.after else put(store, *args, **kwargs)
            finally:
                self.fail(now)

        async def fail_put_async(store, *args, **kwargs):
            now = due()
            try:
                return None if now and not self.after else await put_async(store, *args, **kwargs)
            finally:
                self.fail(now)

        monkeypatch.setattr(MemoryStore, "put", fail_put)
        monkeypatch.setattr(obstore, "put_async", fail_put_async)
        for module in ("object_store", "remote_arrays"):
            monkeypatch.setattr(
                f"quoin.pipeline.storage.{module}.open_object_store", lambda url: stores.setdefault(url, MemoryStore())
            )

    def fail(self, now: bool) -> None:
        if now:
            raise Fault


@pytest.mark.parametrize("after", [False, True], ids=["lost", "done but not known"])
def test_whichever_put_fails_the_run_is_whole_and_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, after: bool):
    pytest.importorskip("obstore", reason="obstore is not installed")
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "home"))
    faults = Faults(monkeypatch)
    go(make("s3://bucket/whole"))
    n_puts = faults.count
    assert n_puts > 15
    faults.after = after
    for k in range(1, n_puts + 1):
        url = f"s3://bucket/{k}"
        faults.count, faults.at = 0, k
        with pytest.raises(Fault):
            go(make(url))
        faults.at = -1
        monkeypatch.setenv("QUOIN_HOME", str(tmp_path / f"home{k}"))  # another machine goes on
        if Run.exists(url):
            seen = Run.open(url)
            for manifest in seen.record.manifests.values():  # what counts is there, and whole
                for name, leaf in manifest.files.items():
                    assert seen.file(name).stat().st_size == leaf.n_bytes
            if seen.manifest("pose"):
                assert arrays.read_array(seen.scene, "poses/points").sum() == 30.0
        assert go(make(url)) == EXPECTED
        assert Run.open(url).file("mesh.ply").read_bytes() == b"mesh of poses 2"


def test_a_file_that_is_not_the_committed_one_is_refused(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    url = f"{bucket}/run"
    go(make(url))
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "elsewhere"))
    Bucket(url).put("mesh.ply", b"mesh of poses 3")
    with pytest.raises(QuoinError, match="not the one that was committed"):
        Run.open(url).file("mesh.ply")
    Bucket(url).remove("mesh.ply")
    with pytest.raises(QuoinError, match="this file is missing"):
        Run.open(url).file("mesh.ply")


def test_two_drivers_cannot_both_commit(bucket: str):
    url = f"{bucket}/run"
    one = make(url)
    other = Run.open(url)
    go(one)
    with pytest.raises(QuoinError, match="Another quoin process has changed this run"):
        go(other)
    assert go(Run.open(url)) == EXPECTED


def test_a_bucket_with_other_things_in_it_is_no_place_for_a_run(bucket: str):
    Bucket(f"{bucket}/full").put("holiday.jpg", b"sun")
    with pytest.raises(QuoinError, match="holds no quoin run"):
        make(f"{bucket}/full")
    assert make(f"{bucket}/full/deeper").location == f"{bucket}/full/deeper"


def test_working_files_of_another_run_at_the_same_url_are_cleared_away(bucket: str):
    url = f"{bucket}/run"
    run = make(url)
    go(run)
    Bucket(bucket).remove("run")
    again = make(url)
    assert again.path == run.path
    assert not (again.path / "mesh.ply").exists()


def test_photos_are_read_from_the_storage_once(bucket: str, monkeypatch: pytest.MonkeyPatch):
    import obstore

    url = f"{bucket}/run"
    go(make(url))
    posed_images.read_photo(Run.open(url), 0)
    asked: list[str] = []
    get_async = obstore.get_async

    async def noted(store, key, **kwargs):
        asked.append(key)
        return await get_async(store, key, **kwargs)

    monkeypatch.setattr(obstore, "get_async", noted)
    posed_images.read_photo(Run.open(url), 0)
    assert not [key for key in asked if key.startswith("photos/0")]
    arrays.read_array(Run.open(url).scene, "poses/points")
    assert any(key.startswith("poses/") for key in asked)


def half(run: Run, name: str) -> None:
    with run.storage.open_for_upload(name) as path:
        path.write_bytes(b"half")
        raise OSError("full")


@pytest.mark.parametrize("at_a_url", [False, True])
def test_what_is_deposited_lies_at_home_only_and_whole(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_a_url: bool
):
    place = f"{bucket}/run" if at_a_url else str(tmp_path / "run")
    run = Run.create(place, photos=tmp_path, settings={}, seed=0)
    with run.storage.open_for_upload("work/a/state") as path:
        path.write_bytes(b"1")
    with pytest.raises(OSError, match="full"):
        half(run, "work/a/state")
    assert (run.path / "work").exists() != at_a_url
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "elsewhere"))
    other = Run.open(place)
    with other.storage.open_downloaded("work/a/state") as path:
        assert path.read_bytes() == b"1"
    assert path.exists() != at_a_url
    with other.storage.open_downloaded("work/a/none") as path:
        assert not path.exists()
    other.storage.remove("work/a")
    with run.storage.open_downloaded("work/a/state") as path:
        assert not path.exists()


def test_what_is_shared_goes_to_another_machine_and_the_one_before_is_kept(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    url = f"{bucket}/run"
    run = make(url)
    for step in (b"1", b"2"):
        (run.path / "work").mkdir(exist_ok=True)
        (run.path / "work" / "state").write_bytes(step)
        run.storage.upload("work/state", backup_name="work/earlier")
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "elsewhere"))
    other = Run.open(url)
    assert other.storage.download("work/state").read_bytes() == b"2"
    assert other.storage.download("work/earlier").read_bytes() == b"1"
    run.storage.remove("work")
    assert not other.storage.download("work/state").exists()
