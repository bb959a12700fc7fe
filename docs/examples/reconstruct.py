"""Reconstruct a folder of photos and read the results: python docs/examples/reconstruct.py photos/ runs/castle"""

import sys

import quoin


def main(photos: str, out: str, **settings: object) -> None:
    run = quoin.reconstruct(photos, out, preset="draft", settings=settings)
    mesh, cameras = run.mesh(), run.cameras()
    print(f"{len(mesh.faces):,} faces from {len(cameras.names)} photos; see {run.report_path}")
    for photo in run.photos():
        if photo.state != "placed":
            print(f"{photo.name} is {photo.state}: {photo.rejection}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
