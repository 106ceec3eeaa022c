"""What every HTML page shares: one look, nothing loaded from anywhere, and files that are ours alone."""

from greedylr.presentation.files import check_writable, whole, write_whole
from greedylr.presentation.rendering import compact, packed, render

__all__ = ["check_writable", "compact", "packed", "render", "whole", "write_whole"]
