"""Formats that volseg reads and writes, against programs of others: `python -m tests.interop FOLDER`."""
