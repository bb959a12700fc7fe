"""Where every photo was taken: features, pairs, mapping, a gate that measures the result, undistorted photos."""
