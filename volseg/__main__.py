"""`python -m volseg`: the command line."""

from volseg.cli.main import run

if __name__ == "__main__":
    run()
