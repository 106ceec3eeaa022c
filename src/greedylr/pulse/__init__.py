"""What the rule did: the record of a run."""

from greedylr.pulse.recorder import Recorder, read

__all__ = ["Recorder", "read"]
