"""The default family: climb until the loss objects, then compare windows of losses."""
