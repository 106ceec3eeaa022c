"""What finished runs say: statistics, recovery from disturbances, robustness."""
