"""Deployment packages: the code of a worker and all it needs, as one zip, the same bytes for the same inputs.

Neutral of providers: a backend says for which machine, with which distributions, and what of them a worker never
needs. Distributions are fetched by uv from a lock with hashes; the compiled kernel is the installed one where that fits
the target, and else is compiled for it, so that a package has one whatever machine it is made on.
"""

from fsdcore.deploy.fetching import Target
from fsdcore.deploy.package import Package, Recipe, build_package, cache_folder

__all__ = ["Package", "Recipe", "Target", "build_package", "cache_folder"]
