"""Light stages that stand in for the real ones: what is tested here is what runs after what."""
