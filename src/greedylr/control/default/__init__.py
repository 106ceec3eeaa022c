"""The default family: a schedule that hears the gradient and the losses."""
