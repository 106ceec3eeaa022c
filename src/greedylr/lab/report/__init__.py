"""The report of a set of runs: tables for the terminal, and a page to look things up in."""
