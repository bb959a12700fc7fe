"""The world frame: scale, gravity and the directions of walls."""
