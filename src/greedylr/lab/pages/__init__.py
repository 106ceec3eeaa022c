"""What every HTML page of the lab shares: one look, nothing loaded from anywhere, and files that are ours alone."""

from greedylr.lab.pages.files import check_writable, write_whole
from greedylr.lab.pages.rendering import compact, render

__all__ = ["check_writable", "compact", "render", "write_whole"]
