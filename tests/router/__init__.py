"""Tests of kio.router."""
