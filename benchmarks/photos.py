"""Which photos of real sets ingest leaves out, and how well it tells one picture saved twice from two pictures.

    python -m benchmarks.photos DATA [SET ...] [--variants N]

DATA holds the sets, one folder each. Prints a line per photo left out by its look; then, of N photos of each set, how
many of the variants below are taken for the photo they were made from. No two photos of these sets are one picture but
in ``bad_inputs``, so each "near duplicate" elsewhere is a false one.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from quoin.pipeline.core.events import Reporter
from quoin.pipeline.core.reasons import Reason
from quoin.pipeline.imaging.io import load_upright
from quoin.pipeline.scene.photo_table import PhotoRow, read_photo_table
from quoin.pipeline.storage.run import Run
from quoin.stages.ingest.config import IngestConfig
from quoin.stages.ingest.stage import INGEST

PIXEL_REASONS = {
    Reason.DUPLICATE,
    Reason.NEAR_DUPLICATE,
    Reason.BLURRED,
    Reason.BLANK,
    Reason.PANORAMA,
    Reason.TOO_SMALL,
}


def saved_variants(rgb: np.ndarray) -> Iterator[tuple[str, Image.Image]]:
    """The photo as others may have saved it."""
    photo = Image.fromarray(rgb)
    width, height = photo.size
    yield "JPEG quality 30", _recompressed(photo, 30)
    yield "half the size", photo.resize((width // 2, height // 2), Image.Resampling.LANCZOS)
    crop = photo.crop((round(0.03 * width), 0, width, round(0.97 * height)))
    yield "3 % cut off two sides", crop
    yield (
        "1.5 % cut off four sides",
        photo.crop((round(0.015 * width), round(0.015 * height), round(0.985 * width), round(0.985 * height))),
    )
    yield "watermark", _watermarked(photo)
    yield "gamma 1.8", Image.fromarray((255.0 * (rgb / 255.0) ** 1.8).astype(np.uint8))
    yield "exposure x 1.5", Image.fromarray(np.clip(rgb * 1.5, 0, 255).astype(np.uint8))
    yield (
        "crop, half, gamma, JPEG 40",
        _recompressed(
            Image.fromarray(
                (255.0 * (np.asarray(crop.resize((width // 2, height // 2))) / 255.0) ** 0.6).astype(np.uint8)
            ),
            40,
        ),
    )


def _recompressed(photo: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def _watermarked(photo: Image.Image) -> Image.Image:
    marked = photo.copy()
    pen, (width, height) = ImageDraw.Draw(marked), photo.size
    for place in (0.25, 0.75):
        pen.text((0.15 * width, place * height), "(c) A STRANGER", fill="white", font_size=min(width, height) // 12)
    return marked


def ingest_folder(photos: Path, work: Path) -> list[PhotoRow]:
    """The photo table of a folder."""
    run = Run.create(work, photos=photos, settings={}, seed=0)
    INGEST(run, IngestConfig(), Reporter())
    return read_photo_table(run)


def summarize_unused(data: Path, name: str) -> str:
    """A table row: the set, how many photos, what was left out by its look and what has a frame."""
    with tempfile.TemporaryDirectory() as work:
        rows = ingest_folder(photo_folder(data, name), Path(work) / "run")
    out = [(row.name, row.rejection) for row in rows if row.rejection and row.rejection.reason in PIXEL_REASONS]
    framed = [row for row in rows if row.used and any(row.border)]
    for photo, rejection in out:
        print(f"    {photo}: {rejection}")
    for row in framed:
        print(f"    {row.name}: frame {row.border} of {row.width} x {row.height}")
    counts = Counter(rejection.reason.text for _, rejection in out)
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"
    return f"| `{name}` | {sum(row.used for row in rows) + len(out)} | {listed} | {len(framed)} |"


def duplicate_recall(data: Path, name: str, count: int) -> dict[str, tuple[int, int]]:
    """Of each variant of ``count`` photos: how many were found, of how many."""
    found: dict[str, tuple[int, int]] = {}
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work) / "photos"
        folder.mkdir()
        files = sorted(file for file in photo_folder(data, name).iterdir() if file.suffix.lower() in (".jpg", ".png"))
        files = [file for file in files if "depth" not in file.name]
        if not files:
            return {}
        for index in np.linspace(0, len(files) - 1, min(count, len(files))).astype(int):
            shutil.copyfile(files[index], folder / f"{index}{files[index].suffix.lower()}")
            for kind, photo in saved_variants(load_upright(files[index])):
                photo.save(folder / f"{index} {kind}.png", compress_level=1)
        for row in ingest_folder(folder, Path(work) / "run"):
            number, _, kind = Path(row.name).stem.partition(" ")
            if kind:
                n_found, n_made = found.get(kind, (0, 0))
                is_duplicate = row.rejection is not None and row.rejection.reason is Reason.NEAR_DUPLICATE
                if is_duplicate and Path(str(row.rejection).rpartition("as ")[2]).stem.partition(" ")[0] != number:
                    print(f"    FALSE: {row.name}: {row.rejection}")
                found[kind] = (n_found + is_duplicate, n_made + 1)
    return found


def photo_folder(data: Path, name: str) -> Path:
    """Where the photos of a set lie."""
    return next(
        (data / name / sub for sub in ("images", "image", "train") if (data / name / sub).is_dir()), data / name
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("sets", nargs="*")
    parser.add_argument("--variants", type=int, default=0, metavar="N")
    options = parser.parse_args()
    sets = options.sets or sorted(path.name for path in options.data.iterdir() if path.is_dir())
    for name in sets:
        print(summarize_unused(options.data, name), flush=True)
    total: dict[str, tuple[int, int]] = {}
    for name in sets if options.variants else []:
        for kind, (n_found, n_made) in duplicate_recall(options.data, name, options.variants).items():
            total[kind] = (total.get(kind, (0, 0))[0] + n_found, total.get(kind, (0, 0))[1] + n_made)
    for kind, (n_found, n_made) in total.items():
        print(f"| {kind} | {n_found} of {n_made} |")


if __name__ == "__main__":
    main()
