"""greedylr: a learning-rate scheduler that listens to the loss."""

from typing import TYPE_CHECKING, Any

from greedylr.control.decision import Action, Decision
from greedylr.control.default.config import DefaultConfig
from greedylr.control.paper.config import PaperConfig

if TYPE_CHECKING:
    from greedylr.torch.probe import probe
    from greedylr.torch.scheduler import GreedyLR

__all__ = ["Action", "Decision", "DefaultConfig", "GreedyLR", "PaperConfig", "__version__", "probe"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    # torch is imported with the first use of these: the rule itself and `greedylr --help` do without.
    if name == "GreedyLR":
        from greedylr.torch.scheduler import GreedyLR

        return GreedyLR
    if name == "probe":
        from greedylr.torch.probe import probe

        return probe
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
