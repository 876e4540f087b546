"""Pictures by matplotlib: section panels, training curves."""
