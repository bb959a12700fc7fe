"""The ground floor: what every other part of quoin stands on, in five rooms.

``core`` knows nothing but Python; ``geometry`` and ``imaging`` are numerics; ``storage`` has the run and its files;
``scene`` has what stages exchange, one record a file. None of them knows torch, ray, prefect, pycolmap or open3d.
"""
