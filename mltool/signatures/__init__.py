"""What the shell sees of the commands."""
