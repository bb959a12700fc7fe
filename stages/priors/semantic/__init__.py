"""Labels from a semantic segmentation network that the user provides."""
