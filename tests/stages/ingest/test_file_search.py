"""The walk: every file once, in natural order, nothing from outside, hostile names kept."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quoin.stages.ingest.file_search import find_files, natural_key


def names(root, **options):
    return [found.name for found in find_files(root, **options)]


def reasons(root):
    return {found.name: str(found.rejection or "") for found in find_files(root)}


def test_natural_order_through_folders(put, photos):
    for name in ("b/1.jpg", "a10.jpg", "a2.jpg", "A3.jpg", "a/x.jpg", "a.jpg"):
        put(name, b"x")
    assert names(photos) == ["a/x.jpg", "a2.jpg", "A3.jpg", "a10.jpg", "a.jpg", "b/1.jpg"]


def test_runs_among_the_photos_are_none_of_them(put, photos):
    for name in ("a.jpg", "runs/b/run.json", "runs/b/logs/events.jsonl", "runs/b/views/1.jpg", "logs/2.jpg"):
        put(name, b"x")
    assert names(photos) == ["a.jpg", "logs/2.jpg"]


@given(st.sets(st.text("aAß1٣²/. ", max_size=9), max_size=8), st.randoms(use_true_random=False))
def test_natural_order_is_total(names, random):
    shuffled = list(names)
    random.shuffle(shuffled)
    assert sorted(shuffled, key=natural_key) == sorted(names, key=natural_key)


def test_hidden_files_and_clutter_are_not_seen(put, photos):
    for name in (".a.jpg", "._b.jpg", ".cache/c.jpg", "__MACOSX/d.jpg", "@eaDir/e.jpg", "Thumbs.db", "f.jpg"):
        put(name, b"x")
    assert names(photos) == ["f.jpg"]


def test_links_that_leave_the_folder_are_not_followed(put, photos, tmp_path):
    outside = tmp_path / "secret"
    outside.mkdir()
    (outside / "a.jpg").write_bytes(b"x")
    put("in.jpg", b"x")
    (photos / "file.jpg").symlink_to(outside / "a.jpg")
    (photos / "folder").symlink_to(outside)
    (photos / "ring.jpg").symlink_to(photos / "ring.jpg")
    (photos / "broken.jpg").symlink_to(photos / "nothing.jpg")
    (photos / "self").symlink_to(photos)
    (photos / "copy.jpg").symlink_to(photos / "in.jpg")
    found = reasons(photos)
    assert found["file.jpg"] == found["folder"] == "link: it leaves the photo folder"
    assert found["ring.jpg"].startswith("unreadable")
    assert found["broken.jpg"].startswith("unreadable")
    assert found["self"].startswith("link: to a folder")
    assert found["in.jpg"] == found["copy.jpg"] == ""
    assert len(found) == 7


def test_a_photo_folder_that_is_itself_a_link_is_read(put, photos, tmp_path):
    put("a.jpg", b"x")
    (tmp_path / "link").symlink_to(photos)
    assert names(tmp_path / "link") == ["a.jpg"]


def test_a_pipe_does_not_block(put, photos):
    os.mkfifo(photos / "pipe.jpg")
    assert reasons(photos) == {"pipe.jpg": "not a photo: not a regular file"}


@pytest.mark.parametrize(
    "name", ["a\nb.jpg", "  spaces  .jpg", "塔.jpg", "я" * 120 + ".jpg", "a" * 246 + ".jpg", "'\".jpg"]
)
def test_hostile_names_are_kept_as_given(put, photos, name):
    put(name, b"x")
    assert names(photos) == [name]


def test_a_name_of_other_bytes_is_listed_with_the_reason(photos):
    with open(os.fsencode(photos) + b"/caf\xe9.jpg", "wb"):
        pass
    (found,) = find_files(photos)
    assert found.name == "caf\\xe9.jpg"
    assert str(found.rejection) == "unreadable: its name is not valid UTF-8"
    assert str(found.path).encode()


def test_raw_says_what_to_do_and_a_video_is_known_by_its_name(put, photos):
    put("a.CR2", b"II*\0")
    put("b.mp4", b"")
    assert reasons(photos) == {
        "a.CR2": "camera raw: save it as TIFF or JPEG",
        "b.mp4": "video",
    }


def test_a_run_inside_the_photo_folder_is_left_out(put, photos):
    put("a.jpg", b"x")
    put("run/report.jpg", b"x")
    assert names(photos, excluded=[photos / "run"]) == ["a.jpg"]
