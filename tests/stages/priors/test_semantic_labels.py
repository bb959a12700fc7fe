"""Networks made here, that know sky by its blue and people by their red, in both kinds of file."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.events import Reporter
from quoin.pipeline.imaging import labels
from quoin.pipeline.scene import posed_images, priors
from quoin.stages.priors import semantic_labels
from quoin.stages.priors.semantic_labels import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    TRANSIENT_CLASSES,
    class_map,
    label_photo,
    label_photos,
    network_input,
    open_network,
)
from tests.fixtures import synthetic

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # how the models here are made
PATH = Path("net.pt")


class Colours(nn.Module):
    """Logits at a quarter of the size: sky where blue leads, a person where red does, a wall elsewhere."""

    def __init__(self, classes: int = 150, kind: str = "logits") -> None:
        super().__init__()
        self.classes, self.kind = classes, kind
        weight = torch.zeros(classes, 3, 1, 1)
        bias = torch.full((classes,), -100.0)
        bias[0] = 0.5  # of what leads by less, nobody says anything
        for index, (lead, against) in {2: (2, 0), 12: (0, 2)}.items():
            weight[index, lead], weight[index, against], bias[index] = 10.0, -10.0, 0.0
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1))
        self.register_buffer("deviation", torch.tensor(IMAGENET_STD).view(1, 3, 1, 1))

    def forward(self, picture: Tensor) -> Tensor:
        rgb = nn.functional.avg_pool2d(picture * self.deviation + self.mean, 4)
        logits = nn.functional.conv2d(rgb, self.weight, self.bias)
        return logits if self.kind == "logits" else logits.argmax(dim=1)


def saved(folder: Path, network: nn.Module, name: str = "net.pt") -> Path:
    torch.jit.script(network).save(str(folder / name))
    return folder / name


def photo(height: int = 96, width: int = 128) -> np.ndarray:
    """Blue above, a red figure at the left below, grey elsewhere."""
    rgb = np.full((height, width, 3), 120, np.uint8)
    rgb[: height // 2] = (90, 130, 220)
    rgb[height // 2 :, : width // 4] = (200, 60, 50)
    return rgb


def assert_right(found: np.ndarray, border: int = 6) -> None:
    h, w = found.shape
    expected = np.full((h, w), labels.WALL)
    expected[: h // 2] = labels.SKY
    expected[h // 2 :, : w // 4] = labels.TRANSIENT
    inner = np.ones((h, w), bool)
    inner[h // 2 - border : h // 2 + border] = False
    inner[:, w // 4 - border : w // 4 + border] = False
    np.testing.assert_array_equal(found[inner], expected[inner])


@pytest.mark.parametrize("kind", ["logits", "map"])
@pytest.mark.parametrize("shape", [(96, 128), (131, 67), (700, 900)])
def test_a_script_finds_sky_and_people(tmp_path: Path, kind: str, shape: tuple[int, int]) -> None:
    network = open_network(saved(tmp_path, Colours(kind=kind)))
    assert_right(label_photo(photo(*shape), network), border=8)


@pytest.mark.parametrize("size", [None, (64, 96)])
@pytest.mark.parametrize("kind", ["logits", "map"])
def test_onnx_finds_the_same(tmp_path: Path, size: tuple[int, int] | None, kind: str) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install onnxruntime")
    onnx = pytest.importorskip("onnx", reason="onnx, which makes the model of this test, is not installed")
    path = tmp_path / "net.onnx"
    onnx.save(_onnx_colours(onnx, size, kind), path)
    network = open_network(path)
    assert network.size == size
    assert_right(label_photo(photo(384, 512), network), border=40 if size else 8)
    fixed = label_photo(photo(384, 512), open_network(saved(tmp_path, Colours(kind=kind)))._replace(size=size))
    np.testing.assert_array_equal(label_photo(photo(384, 512), network), fixed)


def _onnx_colours(onnx, size, kind):
    """``Colours`` as an ONNX graph, node by node."""
    net, helper = Colours(), onnx.helper
    constants = {
        "deviation": net.deviation, "mean": net.mean, "weight": net.weight, "bias": net.bias,
    }  # fmt: skip
    sides = size or ("h", "w")
    nodes = [
        helper.make_node("Mul", ["picture", "deviation"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mean"], ["rgb"]),
        helper.make_node("AveragePool", ["rgb"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Conv", ["small", "weight", "bias"], ["logits"]),
    ]
    if kind == "map":
        nodes.append(helper.make_node("ArgMax", ["logits"], ["map"], axis=1, keepdims=0))
    float_, whole = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    graph = helper.make_graph(
        nodes,
        "colours",
        [helper.make_tensor_value_info("picture", float_, [1, 3, *sides])],
        [helper.make_tensor_value_info(kind, float_ if kind == "logits" else whole, None)],
        [onnx.numpy_helper.from_array(value.detach().numpy(), name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_what_a_network_is_given_is_normalised_and_of_a_size_it_can_halve() -> None:
    white = network_input(np.full((300, 401, 3), 255, np.uint8))
    assert white.shape == (1, 3, 384, 512)
    np.testing.assert_allclose(
        white[0, :, 5, 5] * torch.tensor(IMAGENET_STD) + torch.tensor(IMAGENET_MEAN), 1.0, atol=1e-5
    )
    assert network_input(np.zeros((2000, 100, 3), np.uint8)).shape == (1, 3, 512, 32)
    assert network_input(np.zeros((20, 10, 3), np.uint8), (64, 48)).shape == (1, 3, 64, 48)


def test_classes_mean_what_they_should_and_all_others_nothing() -> None:
    for index in range(150):
        logits = torch.zeros(1, 150, 2, 2)
        logits[:, index] = 1.0
        assert (class_map(logits, (4, 6), PATH) == index).all()
        found = label_photo(photo(32, 32), semantic_labels.SemanticNetwork(PATH, lambda _, out=logits: out, None))
        indoors = {0: labels.WALL, 14: labels.WALL, 3: labels.FLOOR, 28: labels.FLOOR, 5: labels.CEILING}
        kind = (
            labels.SKY
            if index == 2
            else labels.TRANSIENT
            if index in TRANSIENT_CLASSES.values()
            else indoors.get(index, 0)
        )
        assert (found == kind).all()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (torch.zeros(1, 19, 8, 8), "gives 19 classes, not 150"),
        (torch.zeros(1, 151, 8, 8), "gives 151 classes, not 150"),
        (torch.zeros(2, 150, 8, 8), "neither logits nor a map"),
        (torch.zeros(1, 8, 8), "neither logits nor a map"),
        (torch.zeros(150, dtype=torch.long), "neither logits nor a map"),
        (torch.full((1, 8, 8), 150), "from 150 to 150"),
        (torch.full((1, 8, 8), -1), "from -1 to -1"),
        (torch.full((1, 150, 8, 8), float("nan")), "not finite"),
    ],
)
def test_an_output_of_another_kind_is_one_clear_sentence(output: Tensor, said: str) -> None:
    with pytest.raises(QuoinError, match=said):
        class_map(output, (16, 16), PATH)


class Fussy(nn.Module):
    def forward(self, picture: Tensor) -> Tensor:
        return picture.view(1, 3, 7, 7)


class Named(nn.Module):
    def forward(self, picture: Tensor) -> dict[str, Tensor]:
        return {"aux": picture, "out": torch.ones(1, 150, 4, 4)}


def test_files_that_are_no_network_or_take_no_photo_are_one_clear_sentence(tmp_path: Path) -> None:
    (tmp_path / "torn.pt").write_bytes(b"PK not a script")
    with pytest.raises(QuoinError, match="cannot be read"):
        open_network(tmp_path / "torn.pt")
    with pytest.raises(QuoinError, match="Semantic model file not found"):
        open_network(tmp_path / "absent.onnx")
    with pytest.raises(QuoinError, match=r"does not take a picture \[1, 3, 384, 512\]"):
        label_photo(photo(), open_network(saved(tmp_path, Fussy())))
    assert label_photo(photo(), open_network(saved(tmp_path, Named()))).shape == (96, 128)


def test_without_onnxruntime_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net.onnx").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(QuoinError, match=r"pip install \"onnxruntime>=1"):
        open_network(tmp_path / "net.onnx")


def test_a_run_has_labels_of_every_photo_and_those_it_had_are_kept(tmp_path: Path) -> None:
    run = synthetic.make_run(tmp_path, "ingest", "pose")
    posed = synthetic.posed_points(
        synthetic.ring_of_cameras(3, 4.0), synthetic.sphere_points(50), synthetic.faces_camera, size=(1100, 820)
    )
    posed_images.write_posed(run, posed)
    for index in range(2):
        rgb = photo(820, 1100)
        posed_images.write_photo(run, index, synthetic.pyramid(rgb), np.full(rgb.shape[:2], 255, np.uint8))
    before = np.full((3, 4), labels.SKY, np.uint8)
    priors.write_labels(run, 2, before, 3)
    label_photos(run, saved(tmp_path, Colours()), Reporter())
    for index in range(2):
        found = priors.read_labels(run, index)
        assert found is not None
        assert found[1] == 1
        assert found[0].shape == (410, 550)
        assert_right(found[0], border=12)
    kept = priors.read_labels(run, 2)
    assert kept is not None
    np.testing.assert_array_equal(kept[0], before)
