"""The parts of the benchmarks that need no run."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.ablation import ABLATION_VARIANTS
from benchmarks.executor import makespan
from benchmarks.lego import TEST_PHOTO_EVERY, copy_lego_photos, depth_map_distances, interleave_splits
from benchmarks.measure import BenchmarkSkipped, Measurement, combine_measurements
from benchmarks.rivals import surface_scores, training_metrics, training_seconds, view_scores
from benchmarks.sheet import CELL_PX, TITLE_PX, contact_sheet, encode_jpeg, split_panels
from quoin.flows.settings import load_settings
from quoin.stages.partition.block_photos import select_held_out


def test_exactly_the_test_photos_are_held_out(tmp_path):
    names = {kind: [f"{kind}/r_{i}" for i in range(n)] for kind, n in (("train", 12), ("test", 3))}
    for kind, listed in names.items():
        (tmp_path / kind).mkdir()
        for name in listed:
            (tmp_path / f"{name}.png").write_text(name)
        frames = [{"file_path": f"./{name}", "transform_matrix": [[len(name)]]} for name in listed]
        (tmp_path / f"transforms_{kind}.json").write_text(json.dumps({"camera_angle_x": 0.7, "frames": frames}))
    poses = json.loads(copy_lego_photos(tmp_path, tmp_path / "photos", tmp_path / "poses.json").read_text())
    photos = sorted(path.name for path in (tmp_path / "photos").iterdir())
    assert sorted(frame["file_path"] for frame in poses["frames"]) == photos
    assert poses["camera_angle_x"] == 0.7
    out = {photos[i] for i in select_held_out(photos, TEST_PHOTO_EVERY)}
    assert out == {photo for photo in photos if "_test_" in photo}
    assert len(out) == 3
    assert all((tmp_path / "photos" / photo).read_text().replace("/", "_") in photo for photo in photos)


def test_other_numbers_of_photos_are_not_measured():
    with pytest.raises(BenchmarkSkipped, match="not 4 to 1"):
        interleave_splits(["a"], ["b", "c"], 5)


def test_stored_distances_are_even_from_far_to_near():
    np.testing.assert_allclose(depth_map_distances(np.array([[0, 51, 255]], np.uint8)), [[8.0, 6.4, 0.0]])


def test_a_contact_sheet_has_every_picture_in_its_place(tmp_path):
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250], [90, 90, 90]], np.uint8)
    Image.fromarray(np.repeat(colours, 8, axis=0)[None].repeat(16, axis=0)).save(tmp_path / "photo.png")
    parts = split_panels(tmp_path / "photo.png")
    assert [part.shape for part in parts] == [(16, 8, 3)] * 4
    sheet = contact_sheet(["a", "b"], [parts[:2], parts[2:]])
    assert sheet.shape == (TITLE_PX + 4 * CELL_PX, 2 * CELL_PX, 3)
    for number, colour in enumerate(colours):
        row, column = divmod(number, 2)
        np.testing.assert_array_equal(
            sheet[TITLE_PX + CELL_PX + 2 * CELL_PX * row, CELL_PX // 2 + CELL_PX * column], colour
        )


def test_a_picture_is_made_as_small_as_it_must_be():
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    large, small = encode_jpeg(noise), encode_jpeg(noise, 9_000)
    assert len(small) <= 9_000 < len(large)
    assert Image.open(io.BytesIO(small)).size == (160, 120)


def test_every_variant_is_a_configuration_and_another_one():
    found = [load_settings(overrides=changes).model_dump_json() for changes in ABLATION_VARIANTS.values()]
    assert len(set(found)) == len(ABLATION_VARIANTS)
    assert found[0] == load_settings().model_dump_json()


def test_commands_together_take_all_their_time_and_the_highest_peak():
    parts = [Measurement("a", 0, 1.5, 30), Measurement("b", 2, 2.0, 20)]
    assert combine_measurements("both", parts) == Measurement("both", 2, 3.5, 30)


def test_time_of_training_is_that_of_its_steps_and_of_the_surface(tmp_path):
    ends = [("run", 99), ("train/b000", 5), ("train/b000/extract", 2), ("train", 40), ("train/b001", 7)]
    start, stopped = {"kind": "start", "name": "train"}, {"kind": "end", "name": "train/b000", "seconds": 50}
    events = [start, stopped, start, *({"kind": "end", "name": n, "seconds": s} for n, s in ends)]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "events.jsonl").write_text("\n".join(map(json.dumps, events)))
    assert training_seconds(tmp_path) == {"steps": 12, "extract": 2}


def test_a_run_that_was_not_trained_has_no_scores(tmp_path):
    assert training_metrics(tmp_path) == {"trained": False}
    assert view_scores(tmp_path) == surface_scores(tmp_path) == {}


def test_a_queue_without_cost_gives_whoever_is_free_the_next_job():
    assert makespan([4.0, 3.0, 2.0, 1.0], [0.0, 0.0]) == 5.0
    assert makespan([4.0, 3.0, 2.0, 1.0], [0.0, 100.0]) == 10.0, "who comes too late does nothing"
