"""Depth maps find their photos, their unit is told, and what is no depth is refused in a sentence."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.stages.ingest.depth_files import DepthFileFacts, estimate_depth_unit, match_depths


def wall(low: float = 1500, high: float = 2500, dtype: type = np.uint16, shape: tuple[int, int] = (144, 192)):
    return np.linspace(low, high, shape[0] * shape[1]).reshape(shape).astype(dtype)


@pytest.mark.parametrize(
    ("photo", "depth"),
    [
        ("frame-000000.color.jpg", "frame-000000.depth.png"),
        ("12.png", "12.png"),
        ("rgb/12.png", "12.png"),
        ("a.jpg", "a.tiff"),
        ("a.jpg", "a.jpg.png"),
        ("a.JPG", "A_depth.PNG"),
        ("image_7.jpg", "depth_7.png"),
        ("000012.jpg", "12.png"),
        ("one/rgb/12.png", "one/depth/12.png"),
    ],
)
def test_usual_names_match(photo, depth):
    assert match_depths([photo, "other.jpg"], [depth, "else.png"]) == {photo: depth}


@pytest.mark.parametrize("depth", ["b.png", "a1.png", "a.npy", "12.depth.png"])
def test_others_do_not(depth):
    assert match_depths(["a.jpg"], [depth]) == {}


def test_folders_tell_equal_names_apart():
    photos, depths = ["one/rgb/1.png", "two/rgb/1.png"], ["one/depth/1.png", "two/depth/1.png"]
    assert match_depths(photos, depths) == dict(zip(photos, depths, strict=True))
    assert match_depths(photos, ["1.png"]) == {}  # whose is it?


def test_units_are_told_by_the_values():
    assert estimate_depth_unit([DepthFileFacts(True, 1800.0, 3200.0)])[0] == 0.001
    assert estimate_depth_unit([DepthFileFacts(True, 9000.0, 22_000.0)])[0] == 0.0002
    assert estimate_depth_unit([DepthFileFacts(False, 1.8, 3.2)])[0] == 1.0
    assert estimate_depth_unit([DepthFileFacts(False, 1800.0, 3200.0)])[0] == 0.001


@pytest.fixture
def rgbd(tmp_path, put):
    """Three photos; ``rgbd(depths)`` writes depth maps by stem and names their folder."""
    for name in "abc":
        put(f"{name}.jpg", ord(name))

    def write(**depths) -> str:
        folder = tmp_path / "depth"
        folder.mkdir()
        for name, pixels in depths.items():
            tiff = pixels.dtype == np.float32
            Image.fromarray(pixels).save(folder / f"{name}.{'tiff' if tiff else 'png'}")
        return str(folder)

    return write


def test_photos_get_their_depth_maps_and_those_without_are_counted(ingest, rgbd):
    folder = rgbd(a=wall(), c=wall(), d=wall())
    result, rows, logs = ingest(depth=folder)
    assert (result.n_used, result.n_depths, result.depth_unit_m) == (3, 2, 0.001)
    assert [bool(rows[f"{n}.jpg"].depth_path) for n in "abc"] == [True, False, True]
    assert rows["a.jpg"].depth_unit_m == 0.001
    assert any("with depth map: 2" in log for log in logs)
    assert any("1 depth maps belong to no photo, such as 'd.png'" in log for log in logs)
    assert any("millimetres" in log and "2.00 m" in log for log in logs)


def test_depth_maps_among_the_photos_are_no_photos(ingest, put, photos):
    for name in "ab":
        put(f"{name}.color.jpg", ord(name))
        Image.fromarray(wall()).save(photos / f"{name}.depth.png")
    Image.fromarray(wall()).save(photos / "x.depth.png")
    result, rows, _ = ingest(depth=str(photos))
    assert (result.n_used, result.n_depths) == (2, 2)
    assert (str(rows["a.depth.png"].rejection), str(rows["x.depth.png"].rejection)) == (
        "depth map",
        "depth map: of no photo",
    )


def test_metres_and_a_unit_that_is_set(ingest, rgbd):
    folder = rgbd(a=wall(1.5, 2.5, np.float32), b=wall(1.5, 2.5, np.float32))
    assert ingest(depth=folder)[0].depth_unit_m == 1.0
    assert ingest(depth=folder, depth_unit_m=0.5)[0].depth_unit_m == 0.5


def test_bad_maps_are_left_out_with_a_reason(ingest, rgbd):
    folder = rgbd(a=wall(), b=wall(0, 255, np.uint8), c=np.zeros((144, 192), np.uint16))
    result, rows, logs = ingest(depth=folder)
    assert (result.n_used, result.n_depths) == (3, 1)
    assert rows["b.jpg"].depth_path == ""
    assert any("2 of 3 depth maps are left out" in log and "a picture of depth, not depth" in log for log in logs)


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (wall(0, 255, np.uint8), "a picture of depth, not depth: 8 bits"),
        (np.zeros((144, 192, 3), np.uint8), "a picture of depth, not depth: 24 bits"),
        (np.zeros((144, 192), np.uint16), "no values"),
        (np.full((144, 192), 65535, np.uint16), "no values"),
        (wall(shape=(144, 144)), "144 x 144 pixels, its photo has 192 x 144"),
    ],
)
def test_where_no_map_can_be_used_the_run_stops_in_a_sentence(ingest, rgbd, pixels, said):
    with pytest.raises(QuoinError, match=said):
        ingest(depth=rgbd(a=pixels, b=pixels))


def test_maps_of_another_resolution_are_taken(ingest, rgbd):
    assert ingest(depth=rgbd(a=wall(shape=(72, 96)), b=wall(shape=(36, 48))))[0].n_depths == 2


def test_a_file_that_is_no_image_and_names_that_do_not_match(ingest, rgbd, tmp_path):
    folder = rgbd(x=wall())
    with pytest.raises(QuoinError, match="None of the 1 depth maps in this folder belongs to a photo"):
        ingest(depth=folder)
    (tmp_path / "depth" / "a.png").write_bytes(b"no image")
    with pytest.raises(QuoinError, match="no image of a known format"):
        ingest(depth=folder)
    with pytest.raises(QuoinError, match="folder of depth maps does not exist"):
        ingest(depth=str(tmp_path / "nowhere"))


def test_a_depth_camera_is_checked_and_its_maps_may_have_another_shape(ingest, rgbd, tmp_path):
    folder, camera = rgbd(a=wall(shape=(144, 144)), b=wall(shape=(144, 144))), tmp_path / "camera.json"
    camera.write_text('{"fl_x": 100, "fl_y": 100, "cx": 72, "cy": 72, "w": 144, "h": 144}')
    result, rows, _ = ingest(depth=folder, depth_camera=str(camera))
    assert result.n_depths == 2
    assert rows["a.jpg"].depth_camera == str(camera)
    camera.write_text('{"fl_x": 100}')
    with pytest.raises(QuoinError, match="depth camera file is incomplete"):
        ingest(depth=folder, depth_camera=str(camera))
    with pytest.raises(QuoinError, match="no depth maps"):
        ingest(depth_camera=str(camera))
