"""The README: what it shows is run, what it claims is compared."""
