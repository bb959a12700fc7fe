"""What a point is turned into before a network sees it.

All encodings are alike. ``width``; ``forward(points [n, 3])`` gives features [n, width]; ``linearised(points)`` gives
them and a function that turns ∂f/∂features [n, width] into ∂f/∂points [n, 3]. Those of several levels have
``n_levels`` and ``set_progress(active_levels)`` for coarse to fine; grids have ``cell()``, the side of a cell of the
finest active level.
"""
