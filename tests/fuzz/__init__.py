"""Decoders, fed what was sound and has been damaged: each takes it, or refuses it with an error of the framework.

``python -m tests.fuzz INPUTS SEED [DECODER ...]`` makes that many inputs for all decoders together;
``tests/test_fuzz.py`` makes a few of each.
"""
