"""The command line: click alone, one file a command."""
