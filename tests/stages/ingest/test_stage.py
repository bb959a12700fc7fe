"""The stage as a whole: a row for every file, numbers that add up, one clear sentence where nothing can be made."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.ExifTags import GPS, IFD, Base
from scipy.ndimage import gaussian_filter

from quoin.pipeline.core.errors import QuoinError
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.imaging.io import apply_orientation, load_mask, load_upright
from quoin.pipeline.scene.photo_table import load_photo
from tests.fixtures.image_files import UNDO, bomb_png, picture, save, write_tiff
from tests.stages.ingest.scenes import as_rgb, texture, view

DATA = Path("../shared/data")


# -- the everyday case -----------------------------------------------------------------------------------------------


def test_photos_of_a_nested_folder(put, photos, ingest):
    for i in (10, 2, 1):
        put(f"a/photo{i}.png", i)
    put("b.jpg", 7)
    put("notes.txt", b"hello")
    put("Makefile", b"all:")
    result, rows, _ = ingest()
    assert [r.name for r in rows.values() if r.used] == ["a/photo1.png", "a/photo2.png", "a/photo10.png", "b.jpg"]
    assert [r.photo_id for r in rows.values() if r.used] == [0, 1, 2, 3]
    assert {(r.photo_id, r.group) for r in rows.values() if not r.used} == {(-1, -1)}
    assert rows["a/photo2.png"].path == str(photos.resolve() / "a/photo2.png")
    assert (rows["b.jpg"].width, rows["b.jpg"].height) == (192, 144)
    assert str(rows["notes.txt"].rejection) == str(rows["Makefile"].rejection) == "not a photo"
    assert (result.n_files, result.n_used, result.reasons) == (6, 4, {Reason.NOT_A_PHOTO: 2})
    assert result.megapixels == pytest.approx(4 * 192 * 144 / 1e6, abs=1e-3)
    assert result.max_side_px == 192


def test_facts_of_a_photo(photos, put, ingest):
    exif = Image.Exif()
    exif[Base.Model] = "Quoinflex"
    exif.get_ifd(IFD.Exif).update({Base.FocalLengthIn35mmFilm: 43, Base.DateTimeOriginal: "2020:01:02 03:04:05"})
    exif.get_ifd(IFD.GPSInfo).update({GPS.GPSLatitude: (48.0, 30.0, 0.0), GPS.GPSLongitude: (2.0, 0.0, 0.0)})
    save(photos / "a.jpg", picture(1, 144, 192), 6, exif)
    put("b.jpg", 2)
    result, rows, _ = ingest()
    a = rows["a.jpg"]
    assert (a.width, a.height, a.orientation) == (144, 192, 6)
    assert a.focal_px == pytest.approx(43 / 43.2666 * 240, rel=1e-3)
    assert (a.camera, a.taken_at) == ("Quoinflex", "2020-01-02T03:04:05")
    assert (a.latitude_deg, a.longitude_deg) == (48.5, 2.0)
    assert math.isnan(a.altitude_m)
    assert math.isnan(rows["b.jpg"].focal_px)
    assert (result.n_with_focal, result.n_with_gps, result.n_groups) == (1, 1, 2)


def test_the_same_folder_gives_the_same_table(put, ingest, tmp_path):
    for i in range(12):
        put(f"{i % 3}/{i}.jpg", i % 10)
    first, rows, _ = ingest()
    shutil.rmtree(tmp_path / "run")
    second, again, _ = ingest()
    assert first == second
    assert repr(list(rows.items())) == repr(list(again.items()))


def test_groups_by_folder_size_and_camera(put, ingest):
    put("a/1.jpg", 1), put("a/2.jpg", 2), put("b/3.jpg", 3)
    put("a/4.jpg", picture(4, 192, 144))
    result, rows, _ = ingest()
    assert rows["a/1.jpg"].group == rows["a/2.jpg"].group
    assert len({row.group for row in rows.values()}) == result.n_groups == 3


def test_ends_of_a_zoom_are_not_one_camera(photos, ingest):
    """Their focal length in pixels is unknown, that in millimetres differs."""
    for i, focal_mm in enumerate((18, 18, 55)):
        exif = Image.Exif()
        exif.get_ifd(IFD.Exif)[Base.FocalLength] = focal_mm
        save(photos / f"{i}.jpg", picture(i, 144, 192), exif=exif)
    _, rows, _ = ingest()
    assert [row.group for row in rows.values()] == [0, 0, 1]
    assert all(math.isnan(row.focal_px) for row in rows.values())


def test_a_second_call_keeps_what_is_there_until_a_photo_is_added(put, photos, ingest):
    put("1.png", 1), put("2.png", 2)
    first, _, _ = ingest()
    kept, _, logs = ingest()
    assert kept == first
    assert logs == ["already done, kept"]
    put("3.png", 3)
    assert ingest()[0].n_used == 3
    shutil.rmtree(photos)
    assert ingest()[0].n_used == 3  # what was committed needs the folder no more


# -- what is not used ------------------------------------------------------------------------------------------------


def test_every_reason(put, photos, ingest):
    good = put("good.png", 1).read_bytes()
    put("good2.png", 2)
    put("copy.png", 1)
    put("copy_as_lossless.webp", 1, lossless=True)
    put("half.png", picture(3, 480, 640))
    (photos / "half.png").write_bytes((photos / "half.png").read_bytes()[:5000])
    put("empty.jpg", b"")
    put("text.jpg", b"hello")
    put("no_suffix", good)
    put("bomb.png", bomb_png(60_000, 60_000))
    put("tiny.png", picture(5, 64, 640))
    put("black.png", np.zeros((200, 200, 3), np.uint8))
    put("noise.png", np.random.default_rng(0).integers(0, 12, (2000, 2000, 3)).astype(np.uint8))
    put("clip.gif", 6)
    put("data.json", b"{}")
    put("raw.NEF", b"II*\0")
    frames = [Image.fromarray(picture(i, 144, 192)) for i in range(3)]
    frames[0].save(photos / "moving.webp", save_all=True, append_images=frames[1:])
    frames[0].save(photos / "pages.tif", save_all=True, append_images=frames[1:])  # its first page is a photo
    result, rows, logs = ingest()
    reasons = {name: str(row.rejection or "") for name, row in rows.items()}
    assert {name for name, reason in reasons.items() if not reason} == {"copy.png", "good2.png", "pages.tif"}
    assert reasons["good.png"] == reasons["no_suffix"] == "duplicate: same pixels as copy.png"
    assert reasons["copy_as_lossless.webp"] == "duplicate: same pixels as copy.png"
    assert reasons["half.png"] == "truncated"
    assert reasons["empty.jpg"] == reasons["text.jpg"] == "unreadable: it holds no image of a known format"
    assert reasons["bomb.png"] == "too large: the limit is 300 megapixels"
    assert reasons["tiny.png"] == "too small: 640 x 64 pixels"
    assert reasons["black.png"] == reasons["noise.png"] == "blank: it shows nothing"
    assert reasons["clip.gif"] == reasons["data.json"] == "not a photo"
    assert reasons["raw.NEF"].startswith("camera raw")
    assert reasons["moving.webp"] == "animated image: not a photo"
    assert result.n_files == len(rows) == sum(result.reasons.values()) + result.n_used
    assert (result.n_duplicates, result.n_unreadable) == (3, 4)
    assert any("3 duplicate" in line for line in logs)


def test_of_one_picture_saved_in_several_ways_the_best_is_used(photos, put, ingest):
    photo = view(0.0)
    half = np.asarray(Image.fromarray(photo).resize((200, 150), Image.Resampling.LANCZOS))
    put("a half.png", half)
    put("b compressed.jpg", photo, quality=40)
    put("c original.png", photo)
    put("d cut.png", photo[:, 12:])
    put("a step on.png", view(3.0))
    result, rows, logs = ingest()
    assert {name for name, row in rows.items() if row.used} == {"a step on.png", "c original.png"}
    assert str(rows["a half.png"].rejection) == "near duplicate: the same picture as c original.png"
    assert (result.n_used, result.n_near_duplicates, result.reasons) == (2, 3, {Reason.NEAR_DUPLICATE: 3})
    assert any("3 near duplicate" in line for line in logs)
    assert ingest(near_duplicates="keep")[0].n_used == 5
    for name in ("a step on.png", "d cut.png"):
        (photos / name).unlink()
    with pytest.raises(QuoinError, match="All 3 files show the same picture"):
        ingest()


@pytest.mark.parametrize("has_bias", [True, False])
def test_of_a_bracket_the_photo_exposed_as_metered_stays(photos, ingest, has_bias):
    """The brightest, whose file is the largest, has lost what is bright."""
    for place in range(2):
        light = (view(40.0 * place) / 255.0) ** 2.2 * 0.7
        for number, ev in enumerate((0, -1, 1)):
            exif = Image.Exif()
            details = exif.get_ifd(IFD.Exif)
            details[Base.ExposureTime], details[Base.ExposureBiasValue] = 0.01 * 2.0**ev, float(ev * has_bias)
            pixels = (np.clip(light * 2.0**ev, 0, 1) ** (1 / 2.2) * 255 + 0.5).astype(np.uint8)
            save(photos / f"p{place}{number}.jpg", pixels, exif=exif, quality=80 + 15 * (ev > 0))
    _, rows, _ = ingest()
    assert [name for name, row in rows.items() if row.used] == ["p00.jpg", "p10.jpg"]


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_a_cut_out_photo_is_its_own_mask(put, photos, ingest, suffix, orientation):
    """Its transparency was seen as a white wall."""
    rgba = np.dstack([picture(0, 144, 192), np.full((144, 192), 255, np.uint8)])
    rgba[:40, :, 3] = 0
    stored = apply_orientation(rgba, UNDO[orientation])
    save(photos / f"a{suffix}", stored, orientation, **({"lossless": True} if suffix == ".webp" else {}))
    put("plain.png", 1)
    result, rows, _ = ingest()
    row = rows[f"a{suffix}"]
    assert (row.mask_path, rows["plain.png"].mask_path, result.n_masks) == (row.path, "", 1)
    mask = load_mask(Path(row.mask_path), (row.width, row.height), row.orientation)
    np.testing.assert_array_equal(mask, rgba[..., 3])
    assert (load_photo(row)[:40] == 255).all()


def test_a_mask_file_wins_over_transparency_and_opaque_photos_have_none(put, ingest):
    for seed, name in enumerate(["a.png", "b.png", "c.png"]):
        alpha = np.full((144, 192), 255, np.uint8)
        alpha[:40] = 0 if name != "c.png" else 200
        put(name, np.dstack([picture(seed, 144, 192), alpha]))
    mask = put("masks/a.png", np.where(np.arange(192) < 90, 255, 0).astype(np.uint8) * np.ones((144, 1), np.uint8))
    _, rows, _ = ingest()
    assert [rows[name].mask_path for name in ("a.png", "b.png", "c.png")] == [str(mask), rows["b.png"].path, ""]
    _, rows, _ = ingest(masks="none")
    assert [rows[name].mask_path for name in ("a.png", "b.png", "c.png")] == ["", "", ""]


def test_a_near_duplicate_with_a_mask_stays(put, ingest):
    put("large.png", view(0.0))
    put("small.png", view(0.0)[:, 12:])
    put("masks/small.png", np.full((300, 388), 255, np.uint8))
    put("other.png", view(5.0))
    _, rows, _ = ingest()
    assert str(rows["large.png"].rejection) == "near duplicate: the same picture as small.png"


def test_blurred_photos_unless_all_are(put, ingest):
    sharp = [texture(i, 300, 400) for i in range(5)]
    for i, photo in enumerate(sharp):
        put(f"{i}.png", as_rgb(photo))
    put("blurred.png", as_rgb(gaussian_filter(texture(9), 4.0)))
    result, rows, _ = ingest()
    assert str(rows["blurred.png"].rejection) == "blurred: far less sharp than the other photos"
    assert (result.n_used, result.reasons) == (5, {"blurred": 1})
    assert ingest(min_sharpness=0.0)[0].n_used == 6
    for i, photo in enumerate(sharp):
        put(f"{i}.png", as_rgb(gaussian_filter(photo, 4.0)))
    assert ingest()[0].n_used == 6


def test_panoramas(put, ingest):
    put("a.png", as_rgb(texture(1))), put("b.png", as_rgb(texture(2)))
    put("wide.png", as_rgb(texture(3, 200, 600)))
    put("tagged.jpg", as_rgb(texture(4)), xmp=b'GPano:ProjectionType="equirectangular"')
    _, rows, _ = ingest()
    assert str(rows["wide.png"].rejection) == "panorama: 600 x 200 pixels are more than one lens takes in"
    assert str(rows["tagged.jpg"].rejection) == "panorama: the file says that it is equirectangular"
    assert ingest(max_aspect=4.0)[1]["wide.png"].used


def test_a_frame_is_noted_and_the_photo_keeps_its_size(put, ingest):
    put("framed.png", np.pad(as_rgb(texture(1)), ((20, 20), (30, 30), (0, 0)), constant_values=255))
    put("plain.png", as_rgb(texture(2)))
    result, rows, _ = ingest()
    assert (rows["framed.png"].width, rows["framed.png"].height) == (460, 340)
    assert rows["framed.png"].border == (32, 22, 32, 22)
    assert rows["plain.png"].border == (0, 0, 0, 0)
    assert result.n_borders == 1


@pytest.mark.parametrize(
    "name", ["a\nb.jpg", "  spaces  .jpg", "塔 مدينة.jpg", "a" * 246 + ".jpg", "'; \"$(x)`.jpg", "-rf.jpg"]
)
def test_hostile_names_pass_through_the_table(put, ingest, name):
    put(name, 1), put("b.jpg", 2)
    result, rows, logs = ingest()
    assert result.n_used == 2
    assert rows[name].used
    assert load_upright(Path(rows[name].path)).shape == (144, 192, 3)
    assert all("\n" not in line for line in logs)


def test_a_photo_outside_is_not_read_through_a_link(put, photos, ingest, tmp_path):
    put("a.png", 1), put("b.png", 2)
    Image.fromarray(picture(3, 144, 192)).save(tmp_path / "secret.png")
    (photos / "c.png").symlink_to(tmp_path / "secret.png")
    result, rows, _ = ingest()
    assert result.n_used == 2
    assert str(rows["c.png"].rejection) == "link: it leaves the photo folder"


def test_the_runs_own_pictures_are_no_photos(put, photos, ingest, tmp_path):
    put("a.png", 1), put("b.png", 2)
    from quoin.pipeline.core.events import Reporter
    from quoin.pipeline.storage.run import Run
    from quoin.stages.ingest.config import IngestConfig
    from quoin.stages.ingest.stage import INGEST

    run = Run.create(photos / "run", photos=photos, settings={}, seed=0)
    Image.fromarray(picture(9, 144, 192)).save(run.path / "render.png")
    assert INGEST(run, IngestConfig(), Reporter()).n_files == 2


# -- one clear sentence ----------------------------------------------------------------------------------------------


def test_missing_folder_file_and_empty_folder(photos, put, ingest):
    with pytest.raises(QuoinError, match="The photo folder is empty"):
        ingest()
    photos.rmdir()
    with pytest.raises(QuoinError, match="The photo folder does not exist"):
        ingest()
    photos.write_bytes(b"")
    with pytest.raises(QuoinError, match="neither a folder of photos nor a video"):
        ingest()


def test_no_photos(put, ingest):
    put("a.txt", b"x"), put("b.json", b"{}"), put("c.jpg", b"x")
    with pytest.raises(QuoinError, match=r"Of 3 files, no photo can be used \(2 not a photo, 1 unreadable\)"):
        ingest()


def test_one_photo(put, ingest, tmp_path):
    put("a.png", 1)
    with pytest.raises(QuoinError, match="Of 1 file, only 1 photo can be used, and a surface needs at least 2"):
        ingest()
    assert (tmp_path / "run/tables/photos.parquet").exists()


def test_all_identical_photos(put, ingest):
    for i in range(5):
        put(f"{i}.png", 1)
    with pytest.raises(QuoinError, match="All 5 files show the same picture"):
        ingest()


# -- masks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("carries", [True, False])
def test_photo_and_mask_agree_in_every_orientation(photos, put, ingest, tmp_path, orientation, carries):
    """The mask marks what is bright in the photo. It was saved as the photo was, or by hand as the photo is seen."""
    upright = picture(1, 144, 192)
    bright = np.where(upright[..., 0] > 128, 255, 0).astype(np.uint8)
    masks = tmp_path / "masks"
    masks.mkdir()
    save(photos / "a.png", apply_orientation(upright, UNDO[orientation]), orientation)
    if carries:
        save(masks / "a.png", apply_orientation(bright, UNDO[orientation]), orientation)
    else:
        save(masks / "a.png", bright)
    put("b.png", 2)
    result, rows, _ = ingest()
    assert result.n_masks == 1
    a = rows["a.png"]
    mask = load_mask(Path(a.mask_path), (a.width, a.height), a.orientation)
    np.testing.assert_array_equal(mask > 0, load_upright(Path(a.path))[..., 0] > 128)


def test_masks_are_counted_listed_and_not_taken_for_photos(put, photos, ingest):
    half = np.zeros((144, 192), np.uint8)
    half[:70] = 255
    put("a.jpg", 1), put("b.jpg", 2), put("c.jpg", 3), put("d.jpg", 4)
    put("masks/a.jpg.png", half)
    put("masks/stranger.png", half)
    put("b_mask.png", half)
    put("c.jpg.png", np.zeros_like(half))
    result, rows, logs = ingest()
    assert (result.n_used, result.n_masks) == (3, 2)
    assert rows["a.jpg"].mask_path == str(photos.resolve() / "masks/a.jpg.png")
    assert rows["b.jpg"].mask_path == str(photos.resolve() / "b_mask.png")
    assert str(rows["c.jpg"].rejection) == "masked: its mask ignores all of it"
    assert rows["d.jpg"].mask_path == ""
    assert str(rows["masks/a.jpg.png"].rejection) == str(rows["b_mask.png"].rejection) == "mask"
    assert str(rows["masks/stranger.png"].rejection) == "mask: of no photo"
    assert any("1 masks belong to no photo" in line and "stranger" in line for line in logs)
    assert any("with mask: 2" in line for line in logs)


def test_a_folder_that_holds_photos_beside_masks(put, ingest):
    for i in range(3):
        put(f"photos/{i}.jpg", i)
        put(f"masks/{i}.png", np.full((144, 192), 255, np.uint8))
    result, _, _ = ingest()
    assert (result.n_used, result.n_masks, result.reasons) == (3, 3, {Reason.MASK: 3})


def test_masks_where_told_and_not_at_all(put, ingest, tmp_path):
    put("a.jpg", 1), put("b.jpg", 2)
    put("masks/a.png", np.full((144, 192), 255, np.uint8))
    other = tmp_path / "other"
    other.mkdir()
    Image.fromarray(np.full((144, 192), 255, np.uint8)).save(other / "b.png")
    assert ingest()[1]["a.jpg"].mask_path
    _, rows, _ = ingest(masks=str(other))
    assert [bool(rows[name].mask_path) for name in ("a.jpg", "b.jpg")] == [False, True]
    result, rows, _ = ingest(masks="none")
    assert (result.n_used, result.n_masks) == (2, 0)
    assert str(rows["masks/a.png"].rejection) == "mask"


def test_masks_that_were_told_but_fit_nothing(put, ingest, tmp_path):
    put("a.jpg", 1), put("b.jpg", 2)
    other = tmp_path / "other"
    with pytest.raises(QuoinError, match="The folder of masks does not exist"):
        ingest(masks=str(other))
    other.mkdir()
    Image.fromarray(np.full((144, 192), 255, np.uint8)).save(other / "x.png")
    with pytest.raises(QuoinError, match="None of the 1 masks in this folder belongs to a photo"):
        ingest(masks=str(other))


def test_masks_of_the_wrong_size(put, ingest):
    for i in range(4):
        put(f"{i}.jpg", i)
        put(f"masks/{i}.png", np.full((144, 192) if i == 0 else (100, 192), 255, np.uint8))
    with pytest.raises(
        QuoinError, match=r"The mask of '1.jpg' cannot be used: The mask is 192 x 100 .* 2 more of 4 masks"
    ):
        ingest()


def test_an_unreadable_mask(put, ingest):
    put("a.jpg", 1), put("b.jpg", 2), put("masks/a.png", b"x")
    with pytest.raises(QuoinError, match=r"The mask of 'a.jpg' cannot be used: unreadable: it holds no image"):
        ingest()


# -- the real ones ---------------------------------------------------------------------------------------------------


def test_all_bad_inputs_in_one_run(photos, ingest):
    if not (DATA / "bad_inputs").is_dir():
        pytest.skip("real photo sets are not here")
    photos.rmdir()
    shutil.copytree(DATA / "bad_inputs", photos)
    result, rows, _ = ingest()
    used = {name for name, row in rows.items() if row.used}
    reasons = {Path(name).name: str(row.rejection or "") for name, row in rows.items()}
    assert len(rows) == sum(path.is_file() for path in photos.rglob("*")) == result.n_files
    for kind in ("landscape", "portrait"):  # one picture in eight orientations, each with its number written over it
        names = [f"exif-samples/orientation/{kind}_{i}.jpg" for i in range(1, 9)]
        assert len([name for name in names if name in used]) == 1
        assert {getattr(rows[name].rejection, "reason", None) for name in names} == {None, Reason.NEAR_DUPLICATE}
    assert {f"exif-samples/gps/DSCN00{i}.jpg" for i in (10, 12, 21, 25, 27, 29, 38, 40, 42)} <= used
    assert reasons["DJI_20251001213509_0003_D_LENS_CAP.JPG"] == "blank: it shows nothing"
    assert reasons["DJI_20251027143608_0008_D_LENS_CAP.JPG"] == "blank: it shows nothing"
    assert reasons["DJI_20251001132715_0396_D_POOR_SHARPNESS.JPG"] == ""
    assert reasons["truncated_jpeg.jpg"] == reasons["truncated_image.png"] == "truncated"
    assert reasons["broken.png"].startswith("unreadable")
    assert reasons["broken_data_stream.png"].startswith("unreadable")
    assert reasons["exif_typeerror.jpg"] == "duplicate: same pixels as pillow/exif_gps_typeerror.jpg"
    assert reasons["pil_sample_cmyk.jpg"] == "too small: 100 x 100 pixels"
    assert reasons["decompression_bomb.gif"] == reasons["README.md"] == reasons["LICENSE"] == "not a photo"
    assert result.n_with_gps >= 10


@pytest.mark.parametrize("name", ["DSCN0001.NRW", "P01.iiq", "a.3FR", "a.rwl", "IMG_1.TIF", "unnamed"])
def test_the_thumbnail_in_a_camera_raw_is_no_photo(put, photos, ingest, name):
    """By its ending, and under another name (Canon's first raws are .TIF) by what it holds."""
    thumbnail, sensor = picture(0, 144, 192), picture(1, 192, 256)[..., 0].astype(np.uint16) * 16
    write_tiff(photos / name, [(thumbnail, False, True, 2), (sensor, False, False, 32803)])
    put("a.png", 1)
    put("b.png", 2)
    _, rows, _ = ingest()
    assert str(rows[name].rejection) == "camera raw: save it as TIFF or JPEG"
    assert rows["a.png"].used


def test_a_photo_that_is_replaced_by_one_of_the_same_size_is_noticed(put, ingest):
    for seed in range(3):
        put(f"{seed}.ppm", seed)
    _, before, _ = ingest()
    _, _, logs = ingest()
    assert any("already done" in line for line in logs)
    put("1.ppm", 7)
    _, after, _ = ingest()
    assert [name for name, row in after.items() if row.content_hash != before[name].content_hash] == ["1.ppm"]


def test_a_folder_of_raws_says_what_to_do(put, ingest):
    put("a.iiq", b"II*\0")
    put("b.iiq", b"II*\0")
    with pytest.raises(QuoinError, match="Save the camera raws as TIFF or JPEG"):
        ingest()
