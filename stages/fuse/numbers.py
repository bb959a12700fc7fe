"""Numbers for the vertices of a mesh that comes in parts."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int

from stages.fuse.mesh import used_vertices
from stages.fuse.parts import Piece

Array = np.ndarray


def compact(faces: Int[Array, "f 3"]) -> Int[Array, "f 3"]:
    """Faces by the order of the vertices that they use."""
    return np.unique(faces, return_inverse=True)[1].reshape(-1, 3)


class Numbers:
    """Numbers for the vertices of all parts: those of one part follow one another, shared ones belong to the first."""

    def __init__(self) -> None:
        self.count = 0
        self._keys, self._index = np.zeros(0, np.int64), np.zeros(0, np.int64)

    def take(self, piece: Piece, final: Bool[Array, "f"]) -> tuple[Int[Array, "k"], Bool[Array, "k"]]:
        """The numbers of the vertices that the part's ``final`` faces use, and which of them are new."""
        used = used_vertices(piece.mesh.faces[final], len(piece.keys))
        keys = piece.keys[used]
        at = np.searchsorted(self._keys, keys).clip(max=max(len(self._keys) - 1, 0))
        known = self._keys[at] == keys if len(self._keys) else np.zeros(len(keys), bool)
        index = np.empty(len(keys), np.int64)
        if len(self._keys):
            index[known] = self._index[at[known]]
        index[~known] = self.count + np.arange(int((~known).sum()))
        self.count += int((~known).sum())
        around = np.zeros(len(piece.keys), bool)
        around[piece.mesh.faces[~piece.own]] = True
        shared = around[used] & ~known
        keys, where = np.concatenate([self._keys, keys[shared]]), np.concatenate([self._index, index[shared]])
        order = np.argsort(keys)
        self._keys, self._index = keys[order], where[order]
        return index, ~known
