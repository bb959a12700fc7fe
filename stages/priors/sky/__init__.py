"""Sky segmentation of photos, from gravity, SfM points and colors."""
