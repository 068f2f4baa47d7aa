"""A run from inside: one worker, from its start to its end."""
