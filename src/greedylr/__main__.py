"""``python -m greedylr``: the command line."""

from greedylr.cli import main

if __name__ == "__main__":
    main()
