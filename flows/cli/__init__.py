"""The command line: one file a command, and what commands have in common."""
