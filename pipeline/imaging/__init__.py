"""Photos and masks from disk to upright pixels, pyramids, pixel labels, exposure."""
