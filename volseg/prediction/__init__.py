"""A prediction run, from options to a finished target."""
