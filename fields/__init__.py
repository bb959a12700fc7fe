"""Neural fields in torch: encodings, fields, samplers, renderers, grids. They know no run, no store and no stage."""
