"""Tests of kio.frontdoor."""
