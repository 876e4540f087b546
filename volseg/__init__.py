"""volseg: membrane probability maps of electron-microscopy volumes of any size.

The three calls that most notebooks need::

    volseg.predict("raw.zarr", "membrane.zarr", model="fusionnet.safetensors")
    lazy = volseg.membrane_probability(dask_array, "fusionnet.safetensors")
    model = volseg.load_model("fusionnet.safetensors")

Importing volseg loads neither torch nor dask: each call imports what it needs.
"""

from volseg.api import load_model, membrane_probability, predict
from volseg.errors import VolsegError
from volseg.version import __version__

__all__ = ["VolsegError", "__version__", "load_model", "membrane_probability", "predict"]
