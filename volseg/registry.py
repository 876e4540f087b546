"""Plug-ins by name."""
