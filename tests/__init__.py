"""The tests: one folder for each folder of the code, and beside them crash, cluster, golden, tidy."""
