"""What a crash does to the data: real processes killed at any moment, judged by journals of what was acknowledged."""
