"""Measurements of speed, traffic and memory; each prints the figures it finds and keeps none."""
