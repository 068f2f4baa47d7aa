"""The backends of this project; each registers itself under the entry point group ``fsdcore.backends``."""
