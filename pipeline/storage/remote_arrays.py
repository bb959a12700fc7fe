"""scene.zarr in object storage: zarr's own ObjectStore, whose errors are sentences and whose photos are cached here."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Callable
from typing import Any

import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.storage import ObjectStore

from quoin.pipeline.storage.cache import Cache
from quoin.pipeline.storage.object_store import open_store, told


class SceneStore(ObjectStore):
    """The objects of scene.zarr at ``url``.

    What is read below photos/ is kept in ``cache``, named after the commit that ``committed()`` returns; while pose has
    committed nothing, it returns None and nothing is kept.
    """

    def __init__(
        self, url: str, cache: Cache | None, committed: Callable[[], str | None], *, read_only: bool = False
    ) -> None:
        super().__init__(open_store(url), read_only=read_only)
        self.url, self.cache, self.committed = url, cache, committed
        self._there: set[str] = set()  # groups above arrays, which zarr would put again with every array

    def with_read_only(self, read_only: bool = False) -> SceneStore:
        return SceneStore(self.url, self.cache, self.committed, read_only=read_only)

    def __reduce__(self) -> Any:
        raise TypeError("a store is opened anew in every process, from its URL")

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        prototype = prototype or default_buffer_prototype()
        commit = self.committed() if self.cache and byte_range is None and key.startswith("photos/") else None
        if commit is None or self.cache is None:
            with told(self.url):
                return await super().get(key, prototype, byte_range)
        kept = self.cache.get(f"{commit}/{key}")
        if kept is not None:
            return prototype.buffer.from_bytes(kept)
        with told(self.url):
            found = await super().get(key, prototype)
        if found is not None:
            self.cache.put(f"{commit}/{key}", found.to_bytes())
        return found

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        if key not in self._there:
            with told(self.url):
                await super().set_if_not_exists(key, value)
            self._there.add(key)

    async def delete(self, key: str) -> None:
        self._there.discard(key)
        with told(self.url):
            await super().delete(key)

    def list(self) -> AsyncGenerator[str, None]:
        return self._told(super().list())

    def list_prefix(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._told(super().list_prefix(prefix))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        return self._told(super().list_dir(prefix))

    async def _told(self, names: AsyncGenerator[str, None]) -> AsyncGenerator[str, None]:
        with told(self.url):
            async for name in names:
                yield name


def _as_sentences(method: str) -> Any:
    plain = getattr(ObjectStore, method)

    @functools.wraps(plain)
    async def call(self: SceneStore, *args: Any, **kwargs: Any) -> Any:
        with told(self.url):
            return await plain(self, *args, **kwargs)

    return call


for _method in ("set", "exists", "delete_dir", "getsize", "get_partial_values"):
    setattr(SceneStore, _method, _as_sentences(_method))


def open_scene(url: str, cache: Cache | None, committed: Callable[[], str | None]) -> zarr.Group:
    """The Zarr v3 group at ``url``, made where absent."""
    return zarr.open_group(store=SceneStore(url, cache, committed), mode="a", zarr_format=3)
