"""The services of cloud providers on this machine: for trying things out and for tests, with no account and no cost."""
