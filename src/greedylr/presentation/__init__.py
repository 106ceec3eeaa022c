"""Shared parts of every HTML page: one style, nothing loaded from elsewhere, and no overwriting of other files."""

from greedylr.presentation.files import check_writable, whole, write_whole
from greedylr.presentation.rendering import compact, packed, render

__all__ = ["check_writable", "compact", "packed", "render", "whole", "write_whole"]
