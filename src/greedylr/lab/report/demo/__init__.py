"""The demonstration of ``greedylr demo``: its runs, its table and its page."""

from greedylr.lab.report.demo.contents import MULTIPLIERS, PROBLEMS, QUICK_SEEDS, SCHEDULERS, SEEDS, plan

__all__ = ["MULTIPLIERS", "PROBLEMS", "QUICK_SEEDS", "SCHEDULERS", "SEEDS", "plan"]
