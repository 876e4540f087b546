"""Enrichment: patches varied on the training device, each by chance of its own, in this order.

orientations.py  the section turned and flipped, the stack turned over
elastic.py       smooth deformation: U-Net's coarse grid, FusionNet's field
misalignment.py  sections from which on the stack is shifted
sharpness.py     blurred patches, sections out of focus
grey.py          gamma, contrast, brightness; sections too dark or too bright
fold.py          sections with a fold line
grey.py          noise; then sections that are missing
compose.py       all of them in a row
moving.py        how voxels move, labels with them;  chance.py  whom it meets
"""

from volseg.training.enrichment.compose import make_enrichment

__all__ = ["make_enrichment"]
