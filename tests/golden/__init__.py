"""Data directories of every format version, read for ever and never rewritten."""
