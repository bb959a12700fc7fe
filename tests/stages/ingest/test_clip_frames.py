"""Clips through the stage: frames that matter as photos with their times, and a reason for all that gives none."""

from __future__ import annotations

import contextlib
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.imaging.io import load_upright
from quoin.stages.ingest.keyframes import MIN_KEYFRAME_STEP
from tests.fixtures.image_files import picture
from tests.fixtures.video_clips import HEIGHT, WIDTH, blurred, pan, wall, write_clip

STEP_PX = MIN_KEYFRAME_STEP * WIDTH
WALK = np.arange(90) * 3.0  # pixels; 3 s at 30 frames a second


def frames_of(rows, clip):
    return [row for row in rows.values() if row.clip == clip and row.used]


def place_of(row, lefts):
    """Left edge, in pixels of the wall, of what a frame shows."""
    return lefts[int(Path(row.path).stem)]


def test_frames_of_a_clip_beside_photos(photos, put, ingest):
    write_clip(photos / "sub" / "walk.mp4", pan(WALK))
    put("a.jpg", 1), put("z.jpg", 2)
    result, rows, logs = ingest()
    frames = frames_of(rows, "sub/walk.mp4")
    steps = np.diff([place_of(row, WALK) for row in frames])
    assert 11 <= len(frames) <= 17
    assert 0.5 * STEP_PX <= steps.min() <= steps.max() <= 2 * STEP_PX
    assert result.n_frames == len(frames) == result.n_used - 2
    assert result.n_files == 3
    assert [row.photo_id for row in rows.values()] == list(range(result.n_used))
    assert list(rows) == ["a.jpg", *(row.name for row in frames), "z.jpg"]
    assert len({row.group for row in frames}) == 1
    assert frames[0].group not in {rows["a.jpg"].group, rows["z.jpg"].group}
    for row in frames:
        number = int(Path(row.path).stem)
        assert row.name == f"sub/walk.mp4/{number:06d}.jpg"
        assert row.time_s == pytest.approx(number / 30, abs=2e-3)
        shown = load_upright(Path(row.path)).astype(int)
        assert np.abs(shown - pan([place_of(row, WALK)])[0]).mean() < 8
    (clip,) = result.clips
    assert (clip.name, clip.n_frames, clip.n_taken) == ("sub/walk.mp4", 90, len(frames))
    assert clip.frames_per_s == pytest.approx(30, abs=0.01)
    assert any("walk.mp4" in line and "of 90 frames taken (3.0 s, 30 a second)" in line for line in logs)
    assert rows["a.jpg"].clip == ""
    assert np.isnan(rows["a.jpg"].time_s)


@pytest.mark.slow
def test_a_pause_gives_no_duplicates_and_a_blurred_part_no_frame(photos, ingest):
    lefts = np.concatenate([WALK, np.full(120, 270.0), 270.0 + WALK])
    shown = pan(lefts)
    shown[210:] = blurred(shown[210:], 6.0)
    write_clip(photos / "a.mp4", shown)
    result, rows, logs = ingest()
    numbers = np.array([int(Path(row.path).stem) for row in frames_of(rows, "a.mp4")])
    assert not (numbers > 212).any()
    assert ((numbers > 95) & (numbers < 205)).sum() <= 1
    (clip,) = result.clips
    ((begin, end),) = clip.blurred_s
    assert begin == pytest.approx(7.0, abs=0.3)
    assert end == pytest.approx(9.9, abs=0.1)
    ((begin, end),) = clip.still_s
    assert begin <= 3.0 <= 6.9 <= end
    assert any(
        "; blurred, no frame taken: 0:0" in line and "; still, one frame taken: 0:02–0:0" in line for line in logs
    )


@pytest.mark.parametrize("matrix", [(0, 1, -1, 0), (0, -1, 1, 0), (-1, 0, 0, -1), (-1, 0, 0, 1)])
def test_frames_stand_upright_as_the_display_matrix_says(photos, ingest, matrix):
    """(x, y) of the stored picture is shown at (a x + c y, b x + d y), up to a shift."""
    write_clip(photos / "a.mp4", pan(WALK[:30]), matrix=matrix)
    _, rows, _ = ingest()
    row = frames_of(rows, "a.mp4")[1]
    stored = pan([place_of(row, WALK)])[0]
    a, b, c, d = matrix
    down, across = np.mgrid[:HEIGHT, :WIDTH]
    x, y = a * across + c * down, b * across + d * down
    turned = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1, 3), int)
    turned[y - y.min(), x - x.min()] = stored
    shown = load_upright(Path(row.path)).astype(int)
    assert (row.width, row.height, row.orientation) == (*turned.shape[1::-1], 1)
    assert np.abs(shown - turned).mean() < 8


def test_pixels_that_are_not_square_and_frames_at_odd_times(photos, ingest):
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.3, 40)).tolist()
    lefts = np.arange(40) * 8.0
    write_clip(photos / "a.mkv", pan(lefts), times_s=times, aspect=Fraction(4, 3))
    result, rows, _ = ingest()
    frames = frames_of(rows, "a.mkv")
    assert len(frames) >= 12
    assert {(row.width, row.height) for row in frames} == {(round(WIDTH * 4 / 3), HEIGHT)}
    for row in frames:
        assert row.time_s == pytest.approx(times[int(Path(row.path).stem)] - times[0], abs=0.01)
    assert result.clips[0].duration_s == pytest.approx(times[-1] - times[0], abs=0.01)


def test_a_cap_over_all_clips(photos, ingest, tmp_path):
    write_clip(photos / "a.mp4", pan(WALK))
    write_clip(photos / "b.mp4", pan(WALK[::2], seed=5))
    many, _, _ = ingest()
    few, rows, _ = ingest(max_frames=12)
    assert many.n_frames > 18
    assert 8 <= few.n_frames <= 12
    assert abs(len(frames_of(rows, "a.mp4")) - len(frames_of(rows, "b.mp4"))) <= 2
    kept = {path.name for path in (tmp_path / "run/frames/a.mp4").glob("*.jpg")}
    assert kept == {Path(row.path).name for row in frames_of(rows, "a.mp4")}, "frames of earlier settings go"


def test_a_clip_is_looked_through_once_and_its_frames_are_written_once(photos, put, ingest, monkeypatch):
    from quoin.stages.ingest import clip_frames

    write_clip(photos / "a.mp4", pan(WALK))
    first, rows, _ = ingest()
    file = Path(frames_of(rows, "a.mp4")[0].path)
    stamp = file.stat().st_mtime_ns
    with monkeypatch.context() as patch:
        patch.setattr(clip_frames, "scan_clip", None)
        patch.setattr(clip_frames, "write_frames", None)
        put("b.jpg", 1)
        second, _, _ = ingest()
    assert second.n_frames == first.n_frames
    assert file.stat().st_mtime_ns == stamp
    file.unlink()
    ingest(min_contrast=1.0)
    assert file.exists(), "a frame that is gone comes again"
    write_clip(photos / "a.mp4", pan(WALK, seed=3))
    _, rows, _ = ingest()
    row = frames_of(rows, "a.mp4")[0]
    shown = load_upright(Path(row.path)).astype(int)
    assert np.abs(shown - pan([place_of(row, WALK)], seed=3)[0]).mean() < 8, "another clip of that name: other frames"


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_measurements_that_are_damaged_are_thrown_away_and_made_again(photos, ingest, tmp_path, share):
    write_clip(photos / "a.mp4", pan(WALK))
    _, before, _ = ingest()
    [scan] = (tmp_path / "run/work/ingest").glob("*.npz")
    frame = Path(frames_of(before, "a.mp4")[0].path)
    scan.write_bytes(scan.read_bytes()[: int(share * scan.stat().st_size)])
    frame.write_bytes(b"")  # as a power cut leaves it
    _, rows, logs = ingest(min_contrast=1.0)
    assert [row.name for row in rows.values() if row.used] == [row.name for row in before.values() if row.used]
    assert frame.stat().st_size > 0
    assert sum("thrown away and made again" in line for line in logs) == 1


def test_what_is_no_clip_says_why(photos, put, ingest):
    whole = write_clip(photos / "whole.mkv", pan(WALK)).read_bytes()
    put("cut.mkv", whole[: len(whole) // 2])
    put("noindex.mp4", write_clip(photos / "x.mp4", pan(WALK[:20])).read_bytes()[:-2000])
    put("codec.mp4", (photos / "x.mp4").read_bytes().replace(b"avc1", b"zzzz"))
    put("text.mp4", b"hello")
    put("empty.mov", b"")
    put("playlist.mp4", b"#EXTM3U\n#EXTINF:10,\nwhole.mkv\n#EXT-X-ENDLIST\n")
    put("one.mp4", write_clip(photos / "one.mp4", pan([900.0])).read_bytes())
    write_clip(photos / "blurred.mp4", blurred(pan(WALK[:20]), 8.0))
    put("IMG_1.jpg", picture(1, 144, 192))
    write_clip(photos / "IMG_1.MOV", pan(WALK[:5]), format="mov")
    result, rows, logs = ingest()
    reasons = {name: str(row.rejection or "") for name, row in rows.items() if not row.clip}
    assert reasons["noindex.mp4"] == "unreadable: no video, or one whose end, with its index, is missing"
    assert reasons["text.mp4"] == reasons["empty.mov"] == reasons["playlist.mp4"] == reasons["noindex.mp4"]
    assert reasons["codec.mp4"] == "unreadable: nothing here decodes its codec"
    assert reasons["blurred.mp4"] == "blurred: nothing in this video is sharp"
    assert reasons["IMG_1.MOV"] == "live photo: its photo IMG_1.jpg is used"
    facts = {clip.name: clip for clip in result.clips}
    assert facts.keys() == {"whole.mkv", "cut.mkv", "x.mp4", "one.mp4"}
    assert 1 < facts["cut.mkv"].n_frames < 90
    assert facts["cut.mkv"].cut_off == f"cut off: {facts['cut.mkv'].n_frames} frames of about 90 can be decoded"
    assert not facts["whole.mkv"].cut_off
    assert (facts["one.mp4"].n_frames, facts["one.mp4"].n_taken) == (1, 1)
    assert any("cut.mkv" in line and "can be decoded" in line for line in logs)


# -- interlaced film, and clips that are no good -----------------------------------------------------------------------


def interlaced(lefts):
    """Frames whose odd lines show a pan half a frame later."""
    frames = [frame.copy() for frame in pan(lefts)]
    later = pan([left + 0.5 * step for left, step in zip(lefts, np.diff([*lefts, lefts[-1]]), strict=True)])
    for frame, other in zip(frames, later, strict=True):
        frame[1::2] = other[1::2]
    return frames


def test_one_field_of_interlaced_film_is_used_with_a_warning(photos, ingest):
    """Both together show what moves as a comb."""
    lefts = np.arange(40) * 12.0
    frames = interlaced([float(left) for left in lefts])
    write_clip(photos / "a.mp4", frames, interlaced=True)
    result, rows, logs = ingest()
    assert result.clips[0].is_interlaced
    assert any("a.mp4" in line and "interlaced: one field of each frame is used" in line for line in logs)
    assert len(frames_of(rows, "a.mp4")) >= 10
    for row in frames_of(rows, "a.mp4")[1:-1]:
        number = int(Path(row.path).stem)
        shown = load_upright(Path(row.path)).astype(int)
        assert shown.shape == (HEIGHT, WIDTH, 3)
        first_field = pan([lefts[number]])[0][::2].astype(int)
        errors = [
            np.abs(pixels.reshape(HEIGHT // 2, 2, WIDTH, 3).mean(axis=1) - first_field).mean()
            for pixels in (shown, frames[number])
        ]
        assert errors[0] < 0.5 * errors[1]


def test_progressive_film_is_told_nothing(photos, ingest):
    write_clip(photos / "a.mp4", pan(WALK[:30]))
    result, _, logs = ingest()
    assert not result.clips[0].is_interlaced
    assert not any("interlaced" in line for line in logs)


def with_pixel_aspect(path, numerator, denominator):
    """The clip at ``path`` with another shape of pixels in its header."""
    data = bytearray(path.read_bytes())
    start = data.find(b"pasp") + 4
    assert start > 4
    data[start : start + 8] = struct.pack(">II", numerator, denominator)
    path.write_bytes(data)


@pytest.mark.parametrize("aspect", [(1, 200), (200, 1)])
def test_a_clip_of_impossible_pixels_is_left_out_and_the_others_are_used(photos, ingest, aspect):
    write_clip(photos / "a.mp4", pan(WALK[:30]), codec="mpeg4", aspect=Fraction(1, 1))
    with_pixel_aspect(photos / "a.mp4", *aspect)
    write_clip(photos / "b.mp4", pan(WALK[:30]))
    result, rows, _ = ingest()
    assert str(rows["a.mp4"].rejection).startswith("unreadable: its header says that pixels are")
    assert result.n_used == len(frames_of(rows, "b.mp4")) >= 3


@pytest.mark.parametrize("function", ["_gray_frame", "upright_frame"])
def test_a_clip_whose_frames_cannot_be_converted_is_left_out(photos, ingest, monkeypatch, function):
    from quoin.stages.ingest import clip_decoder

    write_clip(photos / "a.mp4", pan(WALK[:30]))
    write_clip(photos / "b.mp4", pan(WALK[:30]), codec="mpeg4")
    convert = getattr(clip_decoder, function)

    def fail_for_h264(frame):
        def refuse(shown):
            raise ValueError("Cannot convert to the specified format")

        with monkeypatch.context() as patch:
            if "h264" in opened:
                patch.setattr(clip_decoder, "_first_field", refuse)
            return convert(frame)

    opened: list[str] = []
    read = clip_decoder._open_video

    @contextlib.contextmanager
    def note_codec(path):
        with read(path) as (container, stream):
            opened[:] = [stream.codec_context.name]
            yield container, stream

    monkeypatch.setattr(clip_decoder, "_open_video", note_codec)
    monkeypatch.setattr(clip_decoder, function, fail_for_h264)
    result, rows, _ = ingest()
    assert "cannot be converted to pictures" in str(rows["a.mp4"].rejection)
    assert result.n_used == len(frames_of(rows, "b.mp4")) >= 3


def test_sound_without_pictures(photos, put, ingest):
    import av

    put("a.jpg", 1), put("b.jpg", 2)
    with av.open(str(photos / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert str(ingest()[1]["sound.mp4"].rejection) == "unreadable: it holds no pictures, only sound"


@pytest.mark.parametrize(
    ("shown", "sentence"),
    [
        (pan([100.0]), "The videos give too few different frames: clip.mp4: 1 of 1 frames taken"),
        (pan([100.0] * 90), r"clip.mp4: 1 of 90 frames taken .*still, one frame taken: 0:00–0:02"),
        (
            blurred(pan(WALK[:30]), 8.0),
            r"No frame of this video can be used \(blurred: nothing in this video is sharp\)",
        ),
    ],
)
def test_one_clip_that_gives_too_little(tmp_path, shown, sentence):
    from quoin.pipeline.core.events import Reporter
    from quoin.pipeline.storage.run import Run
    from quoin.stages.ingest.config import IngestConfig
    from quoin.stages.ingest.stage import INGEST

    clip = write_clip(tmp_path / "clip.mp4", shown)
    with pytest.raises(QuoinError, match=sentence):
        INGEST(Run.create(tmp_path / "run", photos=clip, settings={}, seed=0), IngestConfig(), Reporter())


def test_clips_given_by_name(tmp_path, photos, put):
    from quoin.pipeline.core.events import Reporter
    from quoin.pipeline.storage.run import Run
    from quoin.stages.ingest.config import IngestConfig
    from quoin.stages.ingest.stage import INGEST

    inside = write_clip(photos / "in.mp4", pan(WALK[:20]))
    beside = write_clip(tmp_path / "beside.mp4", pan(WALK[:20], seed=1))
    put("a.jpg", 1)

    def go(*clips: Path):
        run = Run.create(tmp_path / "run", photos=photos, settings={}, seed=0, clips=clips)
        return {clip.name for clip in INGEST(run, IngestConfig(), Reporter()).clips}

    assert go() == {"in.mp4"}
    assert go(beside, inside) == {"in.mp4", "beside.mp4"}, "a clip more is noticed; one of the folder counts once"
    with pytest.raises(QuoinError, match="Two files are named"):
        go(write_clip(tmp_path / "other" / "in.mp4", pan(WALK[:3])))
    with pytest.raises(QuoinError, match="nor a video that can be read"):
        go(put("../a.txt", b"x"))


def test_the_wall_of_these_tests_is_sharp():
    from quoin.stages.ingest.motion import frame_sharpness

    grey = wall()[:240, :320].mean(axis=2).astype(np.uint8)
    assert frame_sharpness(grey) > 0.15
