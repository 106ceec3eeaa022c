"""The rule, framework-free: observe a loss, decide on a learning rate. Standard library only."""
