"""What a block is trained with: photos, points and depths, and the SDF it starts from."""
