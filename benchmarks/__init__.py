"""What quoin claims, and the commands that measure it."""
