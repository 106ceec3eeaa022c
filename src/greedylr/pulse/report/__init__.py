"""The page of one or several runs: one HTML file that needs nothing but itself."""

from greedylr.pulse.report.page import GENERATOR, render, write

__all__ = ["GENERATOR", "render", "write"]
