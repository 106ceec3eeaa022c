"""The rule on PyTorch: the scheduler, the rule on device tensors, one loss for all ranks."""
