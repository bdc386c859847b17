"""What survives the process: files that are complete or say that they are not, and their state."""
