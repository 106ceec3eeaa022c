"""Models: the published ones by configuration, small ones of the same kinds, and the tiny one that is made here."""

from greedylr.language_models.models.loading import Loaded, ModelError, identity, load, new
from greedylr.language_models.models.presets import PRESETS, Preset

__all__ = ["PRESETS", "Loaded", "ModelError", "Preset", "identity", "load", "new"]
