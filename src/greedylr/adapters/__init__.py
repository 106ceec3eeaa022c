"""One file per place where people train; each needs its library and is imported only when asked for."""
