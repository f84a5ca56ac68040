"""What a command will take: time and memory, told by --dry-run."""
