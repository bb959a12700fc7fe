"""The smaller commands: plan, doctor, presets, evaluate, export, demo's collection."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from quoin.flows import capacity
from quoin.flows.capacity import check_resources, estimate_stages, record_durations, stages_in_progress
from quoin.flows.cli import app, doctor
from quoin.flows.cli.demo import generate_collection
from quoin.flows.cli.evaluate import print_scores
from quoin.flows.cli.options import ResultOptions, RunOptions, quote_path
from quoin.flows.cli.plan import print_plan
from quoin.flows.pipeline import STAGES
from quoin.flows.settings import Settings, load_settings, parse_minutes, preset_names
from quoin.pipeline.core.config import StageResult, parse_overrides, validate_config
from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.geometry.lattice import BrickBox, Lattice
from quoin.pipeline.scene import posed_images
from quoin.pipeline.scene.blocks import Block, Partition, block_folder, write_partition
from quoin.pipeline.storage.run import Run
from quoin.stages.partition.config import BlockPlan, PartitionResult
from quoin.stages.train.stage import RAYS_PER_S
from quoin.tools.evaluate.config import DistanceScore, EvaluateResult, LabelScore, PoseErrors, SurfaceScore
from quoin.tools.synthetic.config import SyntheticConfig, SyntheticTruth
from tests.fixtures.synthetic import faces_camera, make_run, posed_points, ring_of_cameras, sphere_points, split_box

# -- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*preset_names(), "demo", "town"])
def test_every_preset_is_valid(name):
    assert list(load_settings(name).model_dump()) == [stage.name for stage in STAGES]


def test_presets_are_few_and_those_of_demos_are_not_listed():
    assert preset_names() == ["default", "draft"]
    assert load_settings() == load_settings("default") == validate_config(Settings, {})
    assert load_settings("demo").partition.min_blocks == 2
    assert load_settings("draft").train.steps < load_settings("default").train.steps


@pytest.mark.parametrize(("old", "new"), [("auto", "default"), ("preview", "draft")])
def test_a_preset_that_was_renamed_is_told_by_its_new_name(old, new):
    with pytest.raises(QuoinError, match=f"This preset has another name now .*Write {new}"):
        load_settings(old)


def test_overrides_lie_on_top_of_a_file_and_of_a_run(tmp_path):
    preset = tmp_path / "mine.yaml"
    preset.write_text("train: {steps: 11, rays: 512}\n")
    settings = load_settings(str(preset), ["train.steps=12"])
    assert (settings.train.steps, settings.train.rays) == (12, 512)
    again = load_settings(base=settings.model_dump(mode="json"), overrides=["train.rays=1024"])
    assert (again.train.steps, again.train.rays) == (12, 1024)


def test_settings_survive_the_run_folder():
    settings = load_settings("demo", ["pose.known_poses='a path: with signs # and more'", "train.lr.grid=1e-3"])
    assert settings.train.lr.grid == 1e-3
    assert validate_config(Settings, settings.model_dump(mode="json")) == settings


@pytest.mark.parametrize(("text", "expected"), [("90s", 1.5), ("5m", 5.0), (" 7 ", 7.0), ("1.5 H", 90.0)])
def test_a_budget_is_a_time(text, expected):
    assert parse_minutes(text) == expected
    assert ResultOptions(budget=text).settings().train.budget_minutes == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "5 days", "-3m", "0s", "m"])
def test_a_budget_that_is_none_is_told(text):
    with pytest.raises(QuoinError, match="Invalid time budget"):
        parse_minutes(text)


def test_paths_are_whole_wherever_a_run_is_gone_on_with(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = load_settings(overrides=["ingest.masks=../masks", "pose.known_poses=s3://bucket/model", "ingest.depth=/d"])
    assert found.ingest.masks == str(tmp_path / ".." / "masks")
    assert (found.pose.known_poses, found.ingest.depth) == ("s3://bucket/model", "/d")
    assert load_settings().ingest.masks == "auto"


def test_a_method_lies_under_what_is_said_beside_it(tmp_path):
    assert load_settings().train == Settings().train  # the defaults are the method quoin
    train = load_settings("demo", ["train.method=volsdf", "train.sampler.samples=32"]).train
    assert (train.renderer.kind, train.sampler.kind, train.sampler.samples) == ("laplace", "bounded", 32)
    assert train.steps == load_settings("demo").train.steps, "which the preset says"
    assert load_settings(base={"train": train.model_dump()}, overrides=["train.method=quoin"]).train == Settings().train
    mine = tmp_path / "mine.yaml"
    mine.write_text("sampler: {kind: importance, coarse: 32}")
    train = load_settings(overrides=[f"train.method={mine}"]).train
    assert (train.sampler.coarse, train.encoding) == (32, Settings().train.encoding)
    for override, hint in (("train.method=news", "neus"), ("train.sampler.sample=3", "samples")):
        with pytest.raises(QuoinError, match=f"Did you mean '{hint}'"):
            load_settings(overrides=[override])


@pytest.mark.parametrize("name", ["a: b", "- c", "#d", "it's", 'say "so"', "日本", "1e3", "null", " e ", "new\nline"])
def test_any_path_can_be_given_for_masks_and_poses(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / name
    path.mkdir()
    assert parse_overrides([f"ingest.masks={quote_path(path)}"]) == {"ingest": {"masks": str(path)}}
    assert ResultOptions(masks=path, poses=path).settings().pose.known_poses == str(path)
    assert ResultOptions(semantic_model=path).settings().priors.semantic_model == str(path)


# -- plan ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def planned(tmp_path) -> Run:
    """A partitioned run of a sphere in two blocks."""
    run = make_run(tmp_path, "ingest", "pose")
    run.record.settings = load_settings(overrides=["train.steps=2000"]).model_dump(mode="json")
    posed = posed_points(ring_of_cameras(6, 4.0), sphere_points(500), faces_camera)
    posed_images.write_posed(run, posed)
    lattice = Lattice((-1.2, -1.2, -1.2), 0.05, 16)
    box = BrickBox((0, 0, 0), (3, 3, 3))
    blocks = [
        Block(b.id, b.core, 1, np.arange(6), np.ones(6), 1.0 + i, (1 + i) << 30, {"n_bricks": 20, "n_points": 250})
        for i, b in enumerate(split_box(box, 2))
    ]
    write_partition(run, Partition(lattice, blocks, np.full(3, -1.1), np.full(3, 1.1)))
    corner = (0.0, 0.0, 0.0)
    listed = [
        BlockPlan(
            id=b.id,
            core_low_world=corner,
            core_high_world=corner,
            n_photos=6,
            n_points=250,
            cost=b.cost,
            memory_bytes=b.memory_bytes,
            n_bricks=20,
            pixels=100_000,
        )
        for b in blocks
    ]
    result = PartitionResult(
        n_blocks=2,
        voxel_size_m=0.05,
        gsd_m=0.01,
        lattice_shape=(45, 45, 45),
        region_low_world=corner,
        region_high_world=corner,
        n_points_supported=500,
        covered_share=1.0,
        blocks=listed,
        n_photos=6,
        megapixels=2.0,
        long_edge_px=1600.0,
    )
    run.commit("partition", "key", result, 1.0)
    return run


def test_plan_tells_blocks_memory_disk_and_time(planned, capsys):
    print_plan(planned)
    out = capsys.readouterr().out
    assert "2 GiB" in out
    assert "67%" in out, "share of the work of the costlier block"
    assert f"quoin resume {planned.path}" in out
    for stage in ("train", "fuse", "report"):
        assert stage in out
    assert "workers" not in out
    print_plan(planned, workers=2)
    assert "2 such workers share the work" in capsys.readouterr().out


def seconds(run: Run, *overrides: str, factors=None) -> dict[str, float]:
    return {row["stage"]: row["seconds"] for row in estimate_stages(run, load_settings(overrides=overrides), factors)}


def test_more_steps_take_longer_and_stereo_goes_with_the_pixels_it_compares(planned):
    one, two, three = (seconds(planned, f"train.steps={n}")["train"] for n in (1000, 2000, 3000))
    assert three - two == pytest.approx(two - one)
    assert two - one == pytest.approx(2 * 1000 * 1024 / RAYS_PER_S)
    half, whole = (seconds(planned, f"priors.stereo_edge_px={n}", "priors.sky=false") for n in (800, 1600))
    assert whole["priors"] == pytest.approx(4 * half["priors"])
    assert whole["fuse"] == half["fuse"]


def test_a_finished_run_corrects_the_next_plan(planned, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path / "home"))
    settings, began = load_settings(overrides=["train.steps=2000"]), time.time() - 1
    before = seconds(planned, "train.steps=2000")
    print_plan(planned)
    assert "have not been run yet" in capsys.readouterr().out
    for stage, factor in (("priors", 3.0), ("train", 0.5), ("fuse", 2.0), ("report", 1.0)):
        planned.commit(stage, "key", StageResult(), factor * before[stage])
    record_durations(planned, settings, "cpu", time.time() + 60)  # of another day
    assert capacity.time_factors("cpu") == {}
    record_durations(planned, settings, "cpu", began)
    known = capacity.time_factors("cpu")
    assert known["train"] == pytest.approx(0.5, rel=1e-3)
    for other in ("train.method=neus", "train.budget_minutes=5"):
        record_durations(planned, load_settings(overrides=["train.steps=2000", other]), "cpu", began)
    record_durations(planned, settings, "cpu", began, {"priors", "train", "fuse"})  # which an earlier session had begun
    assert {stage: known[stage] for stage in ("train",)} == {"train": capacity.time_factors("cpu")["train"]}
    assert seconds(planned, "train.steps=2000", "train.budget_minutes=0.1")["train"] < 0.5 * before["train"]
    after = seconds(planned, "train.steps=2000", factors=known)
    assert after["train"] == pytest.approx(0.5 * before["train"], rel=1e-3)
    assert after["priors"] == pytest.approx(3 * before["priors"], rel=1e-3)
    print_plan(planned)
    assert "times of fuse are those of two CPU cores" in capsys.readouterr().out  # too short a stage to learn from
    capacity.record_ratios("cpu", {"train": 100.0}, {"train": 150.0})
    capacity.record_ratios("cpu", {"train": 100.0}, {"train": 9000.0})  # a busy machine
    assert capacity.time_factors("cpu")["train"] == pytest.approx(1.5)


def test_what_an_earlier_session_has_begun_is_known(planned, monkeypatch):
    assert stages_in_progress(planned) == set()
    folder = block_folder(planned, "b000")
    (folder / "checkpoint.safetensors").touch()
    planned.scene.require_group("priors")
    assert stages_in_progress(planned) == {"priors", "train"}
    planned.commit("priors", "key", StageResult(), 1.0)
    assert stages_in_progress(planned) == {"train"}
    (folder / "checkpoint.safetensors").unlink()
    assert stages_in_progress(planned) == set()
    monkeypatch.setattr(
        "quoin.stages.train.stage.storage_url", lambda home: "s3://bucket/run"
    )  # where it may have been begun elsewhere
    assert stages_in_progress(planned) == {"train"}


def test_a_damaged_calibration_is_as_none(monkeypatch, tmp_path):
    monkeypatch.setenv("QUOIN_HOME", str(tmp_path))
    for text in ("", "[]", '{"cpu": 3}', '{"cpu": {"train": ["fast"]}}', "{"):
        (tmp_path / "calibration.json").write_text(text)
        assert capacity.time_factors("cpu") == {}
    capacity.record_ratios("cpu", {"train": 10.0}, {"train": 20.0})
    assert capacity.time_factors("cpu") == {"train": 2.0}


def test_what_cannot_fit_is_refused_before_anything_is_spent(planned, monkeypatch):
    settings = load_settings()
    check_resources(planned, settings, "cpu")
    monkeypatch.setattr("quoin.flows.capacity.shutil.disk_usage", lambda path: SimpleNamespace(free=10 << 20))
    with pytest.raises(QuoinError, match=r"more disk, and 10 MiB are free"):
        check_resources(planned, settings, "cpu")
    with monkeypatch.context() as there:
        there.setattr("quoin.flows.capacity.storage_url", lambda home: "s3://bucket/run")
        check_resources(planned, settings, "cpu")
    monkeypatch.undo()
    monkeypatch.setattr("quoin.flows.capacity.machine_memory_bytes", lambda: 1 << 30)
    with pytest.raises(QuoinError, match=r"Block \w+ needs 2 GiB to train, this machine has 1 GiB") as refused:
        check_resources(planned, settings, "cpu")
    assert "Use one that has more" in str(refused.value), "no block is so small"
    manifest = planned.require("partition")
    manifest.result["blocks"] = [{**block, "memory_bytes": 8 << 30} for block in manifest.result["blocks"]]
    monkeypatch.setattr("quoin.flows.capacity.machine_memory_bytes", lambda: 6 << 30)
    with pytest.raises(QuoinError, match=r"Give --memory 3\.6 for smaller blocks"):
        check_resources(planned, settings, "cpu")
    check_resources(planned, settings, None)  # blocks are trained elsewhere


def test_memory_of_fusing_is_that_of_a_part_however_large_the_surface(planned):
    def memory() -> int:
        return {row["stage"]: row["memory_bytes"] for row in estimate_stages(planned, load_settings())}["fuse"]

    small, manifest = memory(), planned.require("partition")
    manifest.result["blocks"] = [{**block, "n_bricks": 50_000} for block in manifest.result["blocks"]]
    large = memory()
    manifest.result["blocks"] *= 10
    assert small < large == memory() < 4 << 30


def test_the_plan_of_thousands_of_blocks_lists_the_costliest(planned, capsys):
    manifest = planned.require("partition")
    block = manifest.result["blocks"][0]
    manifest.result["blocks"] = [{**block, "id": f"b{i:04d}", "cost": float(i)} for i in range(5000)]
    manifest.result["n_blocks"] = 5000
    began = time.monotonic()
    print_plan(planned)
    out = capsys.readouterr().out
    assert "b4999" in out
    assert "b0001 " not in out
    assert "and 4,960 smaller blocks" in out
    assert time.monotonic() - began < 20


# -- doctor ----------------------------------------------------------------------------------------------------------


def test_doctor_turns_a_check_that_breaks_into_a_finding():
    def broken():
        raise RuntimeError("no such library")
        yield

    (finding,) = doctor._run_check(broken)
    assert (finding.is_ok, finding.text) == (False, "RuntimeError: no such library")


def test_doctor_names_what_is_missing(monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", ("numpy", "no-such-package"))
    missing, versions = doctor.check_packages()
    assert (missing.topic, missing.is_ok) == ("no-such-package", False)
    assert versions.text.startswith("numpy ")


def test_doctor_knows_the_machine_and_the_server(monkeypatch):
    assert any("cores" in finding.text for finding in doctor.check_machine())
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    (finding,) = doctor.check_prefect()
    assert finding.is_ok is False
    assert "quoin ui" in finding.hint


def test_doctor_tells_what_training_runs_on_and_what_is_kept_compiled(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CXX", "sh")  # any program that is there
    steps, kept = doctor.check_training()
    assert steps.is_ok
    assert "cpu: compiled by" in steps.text
    assert kept.text.startswith("none yet")
    (tmp_path / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "cache" / "deep" / "kernel.so").write_bytes(bytes(2048))
    monkeypatch.setenv("CXX", "no-such-compiler")
    steps, kept = doctor.check_training()
    assert steps.is_ok is False
    assert "no C++ compiler" in steps.text
    assert kept.text == f"2 KiB in {tmp_path / 'cache'}"


@pytest.mark.parametrize(
    ("cuda", "has_triton", "well", "says"),
    [
        (False, True, None, "PyTorch on cpu"),
        (True, True, True, "Triton kernels on cuda"),
        (True, False, False, "PyTorch on cuda"),
    ],
)
def test_doctor_says_what_reads_the_hash_grids(monkeypatch, cuda, has_triton, well, says):
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr("quoin.fields.encoding.hash_grid.HAS_TRITON", has_triton)
    (finding,) = doctor.check_hash_grids()
    assert finding.is_ok is well
    assert says in finding.text
    assert bool(finding.hint) == (well is False)


# -- evaluate, export, view ------------------------------------------------------------------------------------------


def test_scores_are_told_in_a_table(planned, capsys):
    scores = [DistanceScore(distance_m=0.1, distance_percent=1.0, precision=0.5, recall=0.75, f_score=0.6)]
    surface = SurfaceScore(
        diagonal_m=10.0,
        scores=scores,
        accuracy_mean_m=0.02,
        accuracy_median_m=0.01,
        completeness_mean_m=0.04,
        completeness_median_m=0.03,
        chamfer_m=0.03,
        normal_consistency=0.9,
        cropped_share=0.0,
        n_reconstruction=10,
        n_reference=10,
        reference_spacing_m=0.0,
    )
    poses = PoseErrors(
        n_reference=9,
        n_matched=8,
        n_inliers=8,
        spread_m=5.0,
        center_median_m=0.002,
        center_max_m=0.01,
        center_median_percent=0.04,
        center_max_percent=0.2,
        rotation_median_deg=0.05,
        rotation_max_deg=0.1,
    )
    result = EvaluateResult(
        truth="t", cameras="c", scale=1.0, rotation=[], translation=[], surface=surface, poses=poses
    )
    print_scores(result, planned)
    out = capsys.readouterr().out
    assert "part of the truth" not in out
    labels = [LabelScore(label="wall", share=0.25, recall=[0.875], normal_median_deg=1.5)]
    labels += [LabelScore(label="floor", share=0.125, recall=[0.0], normal_median_deg=None)]
    print_scores(result.model_copy(update={"labels": tuple(labels)}), planned)
    told = capsys.readouterr().out
    for text in ("wall", "25.0%", "0.875", "1.50°", "floor", "–"):
        assert text in told
    for text in ("0.500", "0.750", "0.600", "Chamfer 0.03", "8 of 9 cameras", "0.040 % of their spread", "0.050°"):
        assert text in out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["evaluate", "run", "--truth", "absent.ply"], "'fuse' has not been completed"),
        (["evaluate", "run"], "Give a reference surface with --truth, or --views"),
        (["evaluate", "run", "--views", "--device", "cpu"], "'train' has not been completed"),
        (["render", "run", "--out", "frames", "--device", "cpu"], "'train' has not been completed"),
        (["render", "run", "--out", "frames", "--size", "33", "20", "--device", "cpu"], "'width'"),
        (["render", "run", "--path", "oval"], "oval"),
        (["export", "run", "--format", "plyy"], "Unknown export format ('plyy'). Did you mean 'ply'?"),
        (["export", "run", "--format", "ply"], "'fuse' has not been completed"),
        (["view", "run", "--no-browser"], "There is nothing to view yet"),
    ],
)
def test_what_cannot_be_done_yet_is_a_sentence(arguments, sentence, tmp_path, monkeypatch, capsys):
    make_run(tmp_path, "ingest")
    monkeypatch.chdir(tmp_path)
    assert app.run_command(arguments) == 2
    assert sentence in capsys.readouterr().err


# -- demo ------------------------------------------------------------------------------------------------------------


def test_the_demo_collection_is_generated_once(tmp_path, monkeypatch):
    run, made = make_run(tmp_path), []

    def generate(folder, config, seed, report):
        made.append(config.n_photos)
        (folder / "truth").mkdir(parents=True, exist_ok=True)
        (folder / "photos").mkdir(exist_ok=True)
        (folder / "photos" / f"{len(made)}.jpg").touch()
        facts = {
            "photos": "p",
            "mesh": "m",
            "full_mesh": "f",
            "cameras": "c",
            "diagonal_m": 1.0,
            "region_low_m": (0, 0, 0),
            "region_high_m": (1, 1, 1),
            "focal_px": 1.0,
            "n_photos": config.n_photos,
            "n_photos_with_people": 0,
            "people_share": 0.0,
            "seed": seed,
        }
        truth = SyntheticTruth.model_validate(facts)
        (folder / "truth" / "demo.json").write_text(truth.model_dump_json())
        return truth

    monkeypatch.setattr("quoin.tools.synthetic.generate.generate_photos", generate)
    folder, run_options = tmp_path / "collection", RunOptions(quiet=True)
    five, six = validate_config(SyntheticConfig, {"n_photos": 5}), validate_config(SyntheticConfig, {"n_photos": 6})
    assert generate_collection(run, folder, five, 0, run_options) == generate_collection(
        run, folder, five, 0, run_options
    )
    assert made == [5]
    generate_collection(run, folder, six, 0, run_options)
    assert made == [5, 6]
    assert [path.name for path in (folder / "photos").iterdir()] == ["2.jpg"], "photos of the other demo are gone"

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as there:
        there.setattr("quoin.tools.synthetic.generate.generate_photos", stopped)
        with pytest.raises(SystemExit):
            generate_collection(run, folder, five, 0, run_options)
    generate_collection(run, folder, six, 0, run_options)
    assert made == [5, 6, 6], "what was interrupted is not taken for the one before"


def test_a_demo_of_impossible_size_is_a_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.run_command(["demo", "--photos", "1"]) == 2
    assert "n_photos" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("option", ["--plain", "--wild"])
def test_the_room_has_no_crowd_and_is_bare_as_it_is(option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert app.run_command(["demo", "--scene", "room", option]) == 2
    assert "Only the landmark has --plain and --wild" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_quoin_errors_name_the_place():
    with pytest.raises(QuoinError, match="pose"):
        load_settings("default", ["pose.mapper=fast"])


def test_a_try_that_fails_at_once_leaves_no_run_folder(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "notes.txt").write_text("no photo")
    out = tmp_path / "run"
    assert app.run_command(["reconstruct", str(tmp_path / "photos"), "--out", str(out), "-q", "--device", "cpu"]) == 2
    assert "no photo can be used" in capsys.readouterr().err
    assert not out.exists()


def test_one_photo_is_told_to_be_one(tmp_path, capsys):
    path = tmp_path / "a b.jpg"
    Image.new("RGB", (64, 48)).save(path)
    assert app.run_command(["reconstruct", str(path), "--out", str(tmp_path / "run")]) == 2
    assert f"This is one photo; a surface needs several ('{path}'). Name its folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
