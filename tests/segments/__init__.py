"""Tests of kio.segments: the log, the KeyDir, recovery, and what a disk can do to them."""
