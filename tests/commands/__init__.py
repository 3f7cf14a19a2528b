"""Tests of kio.commands: what each does, beside a real server where there is one."""
