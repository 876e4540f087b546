"""Generated electron-microscopy volumes with ground truth: numpy in, numpy out, same seed same bytes.

neurites.py    centre-lines that fill a box of tissue        (nanometres, no voxels yet)
cells.py       centre-lines -> owner of each voxel, distance to the nearest membrane, labels
organelles.py  what fills the cells and misleads a network: mitochondria, vesicles, ER, specks
microscope.py  clean tissue -> uint8 sections, each with its own brightness, noise and stain
make.py        runs the four in order
"""

from volseg.phantom.make import Phantom, make_phantom

__all__ = ["Phantom", "make_phantom"]
