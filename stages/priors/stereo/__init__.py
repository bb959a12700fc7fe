"""Dense depth: PatchMatch stereo over all photos, and the check of their consistency."""
