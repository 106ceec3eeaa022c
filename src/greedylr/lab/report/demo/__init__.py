"""The demonstration of ``greedylr demo``: its runs, its table and its page."""

from greedylr.lab.report.demo.contents import PROBLEMS, SCHEDULERS, plan

__all__ = ["PROBLEMS", "SCHEDULERS", "plan"]
