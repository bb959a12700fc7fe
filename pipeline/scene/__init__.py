"""What stages exchange, one record a file: photo table, posed images, blocks, priors, planes, meshes."""
