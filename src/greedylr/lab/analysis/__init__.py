"""Analysis of finished runs: statistics, recovery from disturbances, robustness."""
