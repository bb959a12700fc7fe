"""Global vertex indices of a mesh that is written in chunks."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

Array = np.ndarray


class VertexIndex:
    """Indices of the vertices of all chunks: consecutive within a chunk; shared vertices belong to the first chunk."""

    def __init__(self) -> None:
        self.count = 0
        self._keys, self._index = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def assign(self, keys: Int[Array, "k"], shared: Bool[Array, "k"]) -> tuple[Int[Array, "k"], Bool[Array, "k"]]:
        """Indices of a chunk's vertices, and which are new; ``shared``: vertices that other chunks may have too."""
        at = np.searchsorted(self._keys, keys).clip(max=max(len(self._keys) - 1, 0))
        is_known = self._keys[at] == keys if len(self._keys) else np.zeros(len(keys), bool)
        index = np.empty(len(keys), np.int64)
        if len(self._keys):
            index[is_known] = self._index[at[is_known]]
        index[~is_known] = self.count + np.arange(int((~is_known).sum()))
        self.count += int((~is_known).sum())
        fresh = shared & ~is_known
        keys, where = np.concatenate([self._keys, keys[fresh]]), np.concatenate([self._index, index[fresh]])
        order = np.argsort(keys)
        self._keys, self._index = keys[order], where[order]
        return index, ~is_known
