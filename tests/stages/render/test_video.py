"""Frames into files: a folder of pictures, or a video by a program that may be missing or fail."""

import sys

import numpy as np
import pytest
from PIL import Image

from pipeline.errors import QuoinError
from pipeline.scene import Rendering
from stages.render import video
from stages.render.picture import picture
from stages.render.video import writer

FRAMES = [np.full((18, 32, 3), shade, np.uint8) for shade in (0, 100, 255)]


def fake_ffmpeg(folder, monkeypatch, body):
    """A program named ffmpeg, first on the path."""
    program = folder / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nimport sys\n{body}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))


def test_pictures_go_into_a_folder_and_old_ones_out_of_it(tmp_path):
    out = tmp_path / "film"
    for frames in (FRAMES, FRAMES[:2]):
        with writer(out, 32, 18, 24) as write:
            for frame in frames:
                write(frame)
    assert [p.name for p in sorted(out.iterdir())] == ["frame_00000.png", "frame_00001.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(out / "frame_00001.png")), FRAMES[1])


def test_a_video_is_what_ffmpeg_makes_of_all_frames(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "open(sys.argv[-1], 'wb').write(sys.stdin.buffer.read())")
    out = tmp_path / "films" / "orbit.mp4"
    with writer(out, 32, 18, 24) as write:
        for frame in FRAMES:
            write(frame)
        assert not out.exists(), "nothing is there before it is complete"
    assert out.read_bytes() == b"".join(frame.tobytes() for frame in FRAMES)
    assert [p.name for p in out.parent.iterdir()] == ["orbit.mp4"]


def test_an_ffmpeg_that_fails_is_told(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "sys.stderr.write('Unknown encoder'); sys.exit(1)")
    out = tmp_path / "a.mp4"
    with pytest.raises(QuoinError, match="Unknown encoder"), writer(out, 32, 18, 24) as write:
        any(write(FRAMES[0]) for _ in range(2000))  # more than a pipe holds
    assert not (tmp_path / "a.mp4").exists()


def test_a_mistake_while_rendering_ends_ffmpeg_and_leaves_nothing(tmp_path, monkeypatch):
    fake_ffmpeg(tmp_path, monkeypatch, "open(sys.argv[-1], 'wb').write(sys.stdin.buffer.read())")
    with pytest.raises(ZeroDivisionError), writer(tmp_path / "a.mp4", 32, 18, 24):
        raise ZeroDivisionError
    assert [p.name for p in tmp_path.iterdir()] == ["bin"]


def test_without_ffmpeg_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(QuoinError, match=r"no ffmpeg.*quoin\[video\]"):
        video.ffmpeg()


def test_pictures_of_colour_normals_and_depth():
    normal = np.array([[[0.0, 0, 1], [0, 0, 0], [1, 0, 0]]], np.float32)
    depth = np.array([[1.0, 0.0, 4.0]], np.float32)
    colour = np.array([[[0.5, 2.0, -1.0]] * 3], np.float32)
    shown = Rendering(colour, normal, depth, np.ones((1, 3), np.float32))
    assert picture(shown, "colour", (1.0, 4.0))[0, 0].tolist() == [128, 255, 0]
    assert picture(shown, "normals", (1.0, 4.0))[0].tolist() == [[128, 128, 255], [255, 255, 255], [255, 128, 128]]
    near, sky, far = picture(shown, "depth", (1.0, 4.0))[0].astype(int)
    assert sky.tolist() == [255, 255, 255]
    assert near.sum() > far.sum()
