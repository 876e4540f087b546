"""`python -m volseg`: the command line."""

from volseg.cli.main import main

if __name__ == "__main__":
    main(prog_name="volseg")
