"""A run as a page: `report` writes one file that needs nothing else; notebooks show the same objects as cards.

`facts` are the numbers behind it, `markup` and `charts` the means, and each section of the page has a module.
"""

from fsdcore.report.page import report

__all__ = ["report"]
