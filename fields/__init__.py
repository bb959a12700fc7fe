"""Neural fields in torch: encodings, fields, samplers, renderers, losses, models. They know no run, store or stage."""
