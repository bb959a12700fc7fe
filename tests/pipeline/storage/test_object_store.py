"""Object storage: URLs, conditions, what is said when it fails, and the cache beside it."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from quoin.flows.prefect.submit import flow_parameters
from quoin.flows.settings import load_settings
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.storage import cache
from quoin.pipeline.storage import object_store as module
from quoin.pipeline.storage.cache import mirror_photos
from quoin.pipeline.storage.object_store import Bucket, storage_url
from quoin.pipeline.storage.run import Run
from tests.fixtures.s3_server import Door


@pytest.mark.parametrize(
    ("place", "url"),
    [
        ("s3://photos/castle/", "s3://photos/castle"),
        (Path("s3://photos/castle"), "s3://photos/castle"),
        ("GS://a/b", "gs://a/b"),
        ("az://container", "az://container"),
        ("runs/castle", None),
        ("/runs/a:b/c", None),
        ("C:\\runs", None),
        (Path("/s3:/x"), None),
    ],
)
def test_a_url_is_told_from_a_path(place, url):
    assert storage_url(place) == url


@pytest.mark.parametrize(
    ("place", "said"),
    [("ftp://a/b", "does not support this kind of storage"), ("http://a", "s3://"), ("s3://", "names no bucket")],
)
def test_a_url_that_is_of_no_use_is_told(place, said):
    with pytest.raises(QuoinError, match=said):
        storage_url(place)


def test_objects_are_put_read_listed_and_removed(bucket: str, tmp_path: Path):
    here = Bucket(f"{bucket}/a folder/ä")
    assert here.is_empty()
    assert here.read("x") is None
    here.put("x", b"1")
    here.put("x/y", b"22")
    (tmp_path / "file").write_bytes(b"333")
    here.upload_file("x2/z", tmp_path / "file")
    assert not here.is_empty()
    assert sorted((name, size) for name, size, _ in here.list_objects()) == [("x", 1), ("x/y", 2), ("x2/z", 3)]
    assert [name for name, _, _ in here.list_objects("x")] == ["x/y"]
    assert here.download("x2/z", tmp_path / "again") is not None
    assert (tmp_path / "again").read_bytes() == b"333"
    assert here.download("none", tmp_path / "none") is None
    here.copy("x2/z", "copy")
    assert here.read("copy") == b"333"
    here.copy("none", "copy")
    assert here.read("copy") == b"333"
    here.remove("x2")
    here.remove("copy")
    here.remove("none")
    assert sorted(name for name, _, _ in here.list_objects()) == ["x", "x/y"]


def test_a_condition_lets_one_of_many_put(bucket: str):
    here = Bucket(bucket)
    stamp = here.put_if_match("a", b"first", None)
    assert stamp
    assert here.put_if_match("a", b"second", None) is None
    assert here.put_if_match("a", b"first", None) == stamp, "the put whose answer was lost, once more"
    wins = []

    def race(number: int) -> None:
        wins.append(Bucket(bucket).put_if_match("a", b"number %d" % number, stamp))

    threads = [threading.Thread(target=race, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(win is not None for win in wins) == 1


def test_a_bucket_that_is_missing_is_told(bucket: str):
    nowhere = Bucket("s3://no-such-bucket/run")
    for ask in (nowhere.is_empty, nowhere.list_objects, lambda: nowhere.read("a"), lambda: nowhere.put("a", b"")):
        with pytest.raises(QuoinError, match=r"There is no such bucket.*s3://no-such-bucket"):
            ask()


def test_without_credentials_it_says_what_to_set(bucket: str, monkeypatch, tmp_path):
    monkeypatch.setattr(module, "REQUEST_RETRY_SECONDS", 1.0)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(QuoinError, match=r"No credentials.*AWS_ACCESS_KEY_ID"):
        Bucket(bucket).is_empty()


def test_keys_of_a_profile_are_found(bucket: str, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.delenv(name)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "config").write_text("[profile mine]\nregion = eu-west-1\n")
    (tmp_path / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = other\n[mine]\naws_access_key_id = a\naws_secret_access_key = b%c\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert module._profile() == {"access_key_id": "a", "secret_access_key": "b%c", "region": "eu-west-1"}
    assert Bucket(bucket).is_empty()


def test_storage_that_is_away_for_a_while_is_waited_for(bucket: str, s3: str, monkeypatch):
    door = Door(s3)
    monkeypatch.setenv("AWS_ENDPOINT_URL", door.address)
    door.open()
    here = Bucket(bucket)
    here.put("a", b"1")
    door.shut()
    threading.Timer(1.5, door.open).start()
    began = time.monotonic()
    here.put("a", b"2")
    assert time.monotonic() - began > 1.0
    assert here.read("a") == b"2"
    door.shut()


def test_storage_that_stays_away_is_told_after_some_patience(bucket: str, s3: str, monkeypatch):
    monkeypatch.setattr(module, "REQUEST_RETRY_SECONDS", 1.0)
    monkeypatch.setenv("AWS_ENDPOINT_URL", Door(s3).address)
    began = time.monotonic()
    with pytest.raises(QuoinError, match="has not answered"):
        Bucket(bucket).read("a")
    assert 0.5 < time.monotonic() - began < 30.0


def test_a_storage_that_is_silent_is_named_by_its_endpoint(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    told = str(module.user_message(OSError("error sending request"), "s3://bucket/run"))
    assert "has not answered for" in told
    assert "('s3://bucket at http://127.0.0.1:1'). Check AWS_ENDPOINT_URL and the network" in told
    assert "ENDPOINT" not in str(module.user_message(OSError("error sending request"), "gs://bucket/run"))


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("403 Forbidden: <Code>AccessDenied</Code>", "refuses these credentials"),
        ("<Code>InvalidAccessKeyId</Code>", "refuses these credentials"),
        ("The specified container does not exist. ErrorCode:ContainerNotFound", "no such bucket"),
        ("Generic MicrosoftAzure error: Account must be specified", "No credentials.*AZURE_STORAGE_ACCOUNT_NAME"),
        ("something else\nwith details", "The storage failed: something else"),
    ],
)
def test_what_a_storage_says_is_one_sentence(said, told):
    with pytest.raises(QuoinError, match=told):
        raise module.user_message(OSError(said), "az://container/run")


# -- photos at a URL -------------------------------------------------------------------------------------------------


def test_photos_are_copied_once_and_follow_what_changes(bucket: str, monkeypatch):
    url = f"{bucket}/photos"
    there = Bucket(url)
    there.put("a.jpg", b"a")
    there.put("deep/b.jpg", b"b")
    folder = mirror_photos(url)
    assert {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()} == {"a.jpg", "deep/b.jpg"}
    fetched: list[str] = []
    download = Bucket.download
    monkeypatch.setattr(Bucket, "download", lambda self, name, path: fetched.append(name) or download(self, name, path))
    assert mirror_photos(url) == folder
    assert fetched == []
    there.put("a.jpg", b"changed")
    there.remove("deep/b.jpg")
    there.put("c.jpg", b"c")
    mirror_photos(url)
    assert sorted(fetched) == ["a.jpg", "c.jpg"]
    assert {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == {"a.jpg": b"changed", "c.jpg": b"c"}
    assert mirror_photos(f"{url}/a.jpg").read_bytes() == b"changed", "one object, such as a clip"
    assert not mirror_photos(f"{bucket}/none").exists()
    assert mirror_photos("/a/folder") == Path("/a/folder")


# -- the cache -------------------------------------------------------------------------------------------------------


def test_the_cache_keeps_to_its_size_and_what_was_used_last(tmp_path: Path):
    kept = cache.DiskCache(tmp_path, limit=1000)
    for number in range(10):
        kept.put(f"run/{number}", bytes(90))
        time.sleep(0.002)
    assert kept.get("run/0") == bytes(90)
    time.sleep(0.002)
    for number in range(10, 13):
        kept.put(f"run/{number}", bytes(90))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert sum(path.stat().st_size for path in (tmp_path / "run").iterdir()) <= 1000
    assert "0" in names, "used since"
    assert "1" not in names
    assert "12" in names
    assert kept.get("run/1") is None
    asked = []
    path = kept.file("run/1", lambda part: asked.append(part.write_bytes(b"again")))
    assert path.read_bytes() == b"again"
    assert kept.file("run/1", lambda part: asked.append(0)) == path
    assert len(asked) == 1


def test_the_size_of_the_cache_is_a_number(monkeypatch):
    assert cache.cache_limit_bytes() == 20 * 2**30
    monkeypatch.setenv("QUOIN_CACHE_GIB", "0.5")
    assert cache.cache_limit_bytes() == 2**29
    monkeypatch.setenv("QUOIN_CACHE_GIB", "much")
    with pytest.raises(QuoinError, match="not a number of GiB"):
        cache.cache_limit_bytes()


SECRET_URLS = [
    "s3://AKIAEXAMPLE:SECRETKEY@bucket/run",
    "s3:/AKIAEXAMPLE:SECRETKEY@bucket/run",  # as pathlib leaves it
    "s3://AKIAEXAMPLE:SEC/SECRETKEY@bucket/run",
    "s3://AKIAEXAMPLE:12/SECRETKEY@bucket/run",
    "S3://user@bucket/SECRETKEY",
    "az://box/run?sv=2024&sig=SECRETKEY",
    "s3://bucket/run?X-Amz-Signature=SECRETKEY&X-Amz-Credential=a",
    "https://user:SECRETKEY@host/photos",
]


@pytest.mark.parametrize("url", SECRET_URLS)
def test_a_url_with_a_secret_is_refused_without_repeating_it(url: str):
    for location in (url, Path(url)):
        with pytest.raises(QuoinError, match="password, a key or a signature") as caught:
            storage_url(location)
        assert "SECRETKEY" not in str(caught.value)


@pytest.mark.parametrize("url", SECRET_URLS)
def test_neither_runs_nor_servers_are_given_a_secret(url: str, tmp_path: Path):
    attempts = [
        lambda: flow_parameters(url, "out", "default", [], 0, []),
        lambda: flow_parameters("photos", url, "default", [], 0, []),
        lambda: flow_parameters("photos", "out", "default", [], 0, [url]),
        lambda: Run.create(tmp_path / "run", photos=url, settings={}, seed=0),
        lambda: Run.create(url, photos=tmp_path, settings={}, seed=0),
        lambda: Run.open(url),
        lambda: mirror_photos(url),
    ]
    for attempt in attempts:
        with pytest.raises(QuoinError) as caught:
            attempt()
        assert "SECRETKEY" not in str(caught.value)
    assert not list(tmp_path.rglob("*"))


def test_a_setting_with_a_secret_is_refused():
    with pytest.raises(QuoinError, match="holds a password") as caught:
        load_settings("default", ["pose.known_poses=s3://AKIAEXAMPLE:SECRETKEY@b/poses"])
    assert "SECRETKEY" not in str(caught.value)


@pytest.mark.parametrize("url", ["s3://bucket/photos@2x", "s3://bucket/a:b", "gs://bucket/a?b=c", "s3://my.bucket"])
def test_names_of_objects_may_hold_any_character(url: str):
    assert storage_url(url) == url
