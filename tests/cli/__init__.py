"""The command line: verbs run in this process against a client in memory, and as processes against a daemon."""
