"""A run from outside: settings, sessions, runs and what they lock."""
