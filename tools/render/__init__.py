"""Render: pictures and films of the trained blocks, from where photos were taken or from where none was."""
