"""The ground floor in five folders: core, geometry, imaging, storage of a run, and the records of a scene.

``core`` knows nothing but Python; ``geometry`` and ``imaging`` are numerics; ``storage`` has the run and its files;
``scene`` has what stages exchange, one record a file. None of them knows torch, ray, prefect, pycolmap or open3d.
"""
