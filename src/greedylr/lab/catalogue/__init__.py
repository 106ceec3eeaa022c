"""Catalogue of problems, perturbations, schedulers, optimizers, and the suites made of them."""
