"""The seed and the report of tests/cluster, for the tests of this folder."""

from tests.cluster.conftest import chance, pytest_runtest_makereport, strace_works

__all__ = ["chance", "pytest_runtest_makereport", "strace_works"]
