"""Plug-ins of volseg."""
