"""What a run counted and timed, as an object and as a file."""
