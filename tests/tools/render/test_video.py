"""Frames into files: a folder of pictures, or a video."""

import av
import numpy as np
import pytest
from PIL import Image

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.scene.posed_images import Rendering
from quoin.tools.render.video import open_frame_writer, output_picture

FRAMES = [np.full((18, 32, 3), shade, np.uint8) for shade in (0, 100, 255)]


def test_pictures_go_into_a_folder_and_old_ones_out_of_it(tmp_path):
    out = tmp_path / "film"
    for frames in (FRAMES, FRAMES[:2]):
        with open_frame_writer(out, 32, 18, 24) as write:
            for frame in frames:
                write(frame)
    assert [p.name for p in sorted(out.iterdir())] == ["frame_00000.png", "frame_00001.png"]
    np.testing.assert_array_equal(np.asarray(Image.open(out / "frame_00001.png")), FRAMES[1])


def test_a_video_holds_all_frames_when_it_is_complete(tmp_path):
    out = tmp_path / "films" / "orbit.mp4"
    with open_frame_writer(out, 32, 18, 24) as write:
        for frame in FRAMES:
            write(frame)
        assert not out.exists(), "nothing is there before it is complete"
    assert [p.name for p in out.parent.iterdir()] == ["orbit.mp4"]
    with av.open(str(out)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.pix_fmt) == ("h264", 24, "yuv420p")
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert [frame.shape for frame in shown] == [(18, 32, 3)] * 3
    np.testing.assert_allclose([frame.mean() for frame in shown], [0, 100, 255], atol=3)


def test_what_cannot_be_encoded_or_written_is_told(tmp_path):
    out = tmp_path / "a.mp4"
    with pytest.raises(QuoinError, match="Cannot write the video"), open_frame_writer(out, 31, 17, 24) as write:
        write(np.zeros((17, 31, 3), np.uint8))  # odd sizes do not go with 4:2:0
    assert not list(tmp_path.iterdir())


def test_a_mistake_while_rendering_leaves_nothing(tmp_path):
    with pytest.raises(ZeroDivisionError), open_frame_writer(tmp_path / "a.mp4", 32, 18, 24) as write:
        write(FRAMES[1 // 0])
    assert not list(tmp_path.iterdir())


def test_pictures_of_colour_normals_and_depth():
    normal = np.array([[[0.0, 0, 1], [0, 0, 0], [1, 0, 0]]], np.float32)
    depth = np.array([[1.0, 0.0, 4.0]], np.float32)
    colour = np.array([[[0.5, 2.0, -1.0]] * 3], np.float32)
    shown = Rendering(colour, normal, depth, np.ones((1, 3), np.float32))
    assert output_picture(shown, "colour", (1.0, 4.0))[0, 0].tolist() == [128, 255, 0]
    assert output_picture(shown, "normals", (1.0, 4.0))[0].tolist() == [
        [128, 128, 255],
        [255, 255, 255],
        [255, 128, 128],
    ]
    near, sky, far = output_picture(shown, "depth", (1.0, 4.0))[0].astype(int)
    assert sky.tolist() == [255, 255, 255]
    assert near.sum() > far.sum()
