"""Train: one neural surface per block, by five parts that compose (encoding, field, renderer, sampler, losses)."""
