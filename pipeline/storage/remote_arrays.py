"""scene.zarr in object storage: zarr's ObjectStore with QuoinErrors and a disk cache for photos."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import ObjectStore

from quoin.pipeline.storage.arrays import open_group, require_chunk
from quoin.pipeline.storage.cache import DiskCache
from quoin.pipeline.storage.object_store import open_object_store, translate_errors


class SceneStore(ObjectStore):
    """The objects of scene.zarr at ``url``.

    What is read below photos/ is kept in ``cache``, named after the commit that ``commit_name()`` returns; while pose
    has committed nothing, it returns None and nothing is kept.
    """

    def __init__(
        self, url: str, cache: DiskCache | None, commit_name: Callable[[], str | None], *, read_only: bool = False
    ) -> None:
        super().__init__(open_object_store(url), read_only=read_only)
        self.url, self.cache, self.commit_name = url, cache, commit_name
        self._existing_groups: set[str] = set()  # groups above arrays, which zarr would put again with every array

    def with_read_only(self, read_only: bool = False) -> SceneStore:
        return SceneStore(self.url, self.cache, self.commit_name, read_only=read_only)

    def __reduce__(self) -> Any:
        raise TypeError("a store is opened anew in every process, from its URL")

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        return require_chunk(key, await self._get(key, prototype, byte_range))

    async def _get(self, key: str, prototype: Any, byte_range: Any) -> Any:
        prototype = prototype or default_buffer_prototype()
        commit = self.commit_name() if self.cache and byte_range is None and key.startswith("photos/") else None
        if commit is None or self.cache is None:
            with translate_errors(self.url):
                return await super().get(key, prototype, byte_range)
        cached = self.cache.get(f"{commit}/{key}")
        if cached is not None:
            return prototype.buffer.from_bytes(cached)
        with translate_errors(self.url):
            value_buffer = await super().get(key, prototype)
        if value_buffer is not None:
            self.cache.put(f"{commit}/{key}", value_buffer.to_bytes())
        return value_buffer

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        if key not in self._existing_groups:
            with translate_errors(self.url):
                await super().set_if_not_exists(key, value)
            self._existing_groups.add(key)

    async def delete(self, key: str) -> None:
        self._existing_groups.discard(key)
        with translate_errors(self.url):
            await super().delete(key)

    def list(self) -> AsyncGenerator[str, None]:
        return self._translated(super().list())

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._translated(super().list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._translated(super().list_dir(prefix))

    async def _translated(self, names: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        with translate_errors(self.url):
            async for name in names:
                yield name


def _with_translated_errors(method: str) -> Any:
    original = getattr(ObjectStore, method)

    @functools.wraps(original)
    async def call(self: SceneStore, *args: Any, **kwargs: Any) -> Any:
        with translate_errors(self.url):
            return await original(self, *args, **kwargs)

    return call


for _method in ("set", "exists", "delete_dir", "getsize", "get_partial_values"):
    setattr(SceneStore, _method, _with_translated_errors(_method))


def open_remote_scene(url: str, cache: DiskCache | None, commit_name: Callable[[], str | None]) -> zarr.Group:
    """The Zarr v3 group at ``url``, made where absent."""
    return open_group(SceneStore(url, cache, commit_name))
