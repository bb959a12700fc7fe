"""The ground all stand on: errors, config, run folder, store, scene, cameras, lattice, progress.

Knows numpy, pydantic, zarr and pyarrow; never torch, ray, prefect or pycolmap.
"""
