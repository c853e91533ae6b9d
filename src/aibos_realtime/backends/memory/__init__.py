"""The backends inside the process: the defaults, and what the contract tests compare the others with."""
