"""The command line: ``greedylr demo``, ``lab``, ``report`` and ``watch``."""

import io
import sys


def main() -> None:
    """Run the command line; what the library alone does not need may be missing, and is then named."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # A × that a terminal does not have is no reason to fail.
    try:
        from greedylr.cli.app import app

        app()
    except ModuleNotFoundError as missing:
        if missing.name is None or missing.name.split(".")[0] == "greedylr":
            raise
        extra = {"lab": "lab", "lm": "lm", "report": "pulse", "watch": "pulse", "theory": "pulse"}.get(
            "".join(sys.argv[1:2]), "demo"
        )
        if extra == "pulse" and ("greedylr.lab" in sys.modules or "greedylr[lab]" in str(missing)):
            extra = "lab"  # The report was to be of a store.
        sys.exit(
            f"greedylr: the command line needs {missing.name}, which is not installed. This installs it:\n"
            f"    pip install 'greedylr[{extra}]'    # in a clone of the repository: pip install '.[{extra}]'"
        )
