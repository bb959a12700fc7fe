"""The command line: commands, their options, display and error messages."""
