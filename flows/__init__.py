"""What runs after what; the command line; live monitoring."""
