from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.reference import ReferenceServer, reference_server
from tests.client.suite import MethodSuite


class TestMethods(MethodSuite):
    pass


class TestMethodsOnOneBytePieces(MethodSuite):
    """Replies that come byte by byte are the same replies."""

    test_a_batch_of_many_frames_comes_back_whole = None
    test_a_batch_of_large_values_comes_back_whole = None
    test_a_pipeline_may_be_longer_than_the_window = None

    @pytest.fixture
    def server(self) -> Iterator[ReferenceServer]:
        with reference_server() as server:
            server.piece_bytes = 1
            yield server


class TestMethodsOverAUnixSocket(MethodSuite):
    @pytest.fixture
    def server(self, tmp_path) -> Iterator[ReferenceServer]:
        with reference_server(tmp_path / "kio.sock") as server:
            yield server
