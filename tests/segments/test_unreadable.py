"""Bytes that the disk no longer delivers: a mapped file that was cut short raises SIGBUS; the process must live on."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kio.errors import Corrupt, KioError
from kio.segments import _hints, format
from kio.segments._mapping import Mapping
from tests.segments.support import SMALL, Driven, open_descriptors


@pytest.fixture
def mapped(tmp_path: Path) -> mmap.mmap:
    """A mapping of 40 KiB whose file has only its first page left."""
    path = tmp_path / "segment"
    record = format.encode_record(1, format.Record(7, 2, format.PUT, 0, b"kio", b"fast" * 1000))
    path.write_bytes(bytes(64) + record + bytes(40 * 1024 - 64 - len(record)))
    with path.open("r+b") as file:
        mapping = mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
    os.truncate(path, 100)
    return mapping


def test_what_a_scan_cannot_read_is_an_error_of_the_disk_and_no_torn_tail(mapped: mmap.mmap) -> None:
    with pytest.raises(OSError, match="cannot be read at offset"):
        _hints.scan(mapped, 64, len(mapped), 1, 0)


def test_a_checksum_over_a_file_that_was_cut_short_is_an_error_of_the_disk(mapped: mmap.mmap) -> None:
    with pytest.raises(OSError, match="could not be read"):
        _hints.crc32c_mapped(memoryview(mapped))


def test_reads_of_a_segment_that_was_cut_short_are_answered_corrupt(tmp_path: Path) -> None:
    driven = Driven(tmp_path / "shard", SMALL)
    keys = [b"key %d" % i for i in range(8)]
    for key in keys:
        driven.put(key, key * 600)
    driven.run_jobs()
    for path in (tmp_path / "shard").glob("*.seg"):
        os.truncate(path, 0)
    assert set(driven.answers(keys).values()) == {Corrupt}
    assert driven.answers([b"another key"]) == {b"another key": None}
    with pytest.raises(Corrupt):
        driven.items()
    with pytest.raises(Corrupt):
        driven.exists(keys[0])
    driven.kill()
    with pytest.raises(KioError):
        driven.open()


def test_an_access_outside_of_a_guarded_read_still_ends_the_process(tmp_path: Path) -> None:
    script = (
        "import mmap, os, sys; import kio.segments._engine\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 8192)\n"
        "mapping = mmap.mmap(fd, 8192, mmap.MAP_SHARED, mmap.PROT_READ); os.ftruncate(fd, 0)\n"
        "mapping[5000]\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(tmp_path / "file")], check=False, timeout=60)
    assert ended.returncode == -7


def test_a_mapping_holds_no_descriptor_and_outlives_the_one_it_was_made_of(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"kio" * 5000)
    before = open_descriptors()
    with path.open("rb") as file:
        mapping = Mapping(file.fileno(), 15000)
    assert open_descriptors() == before
    path.unlink()
    assert bytes(mapping) == b"kio" * 5000
    view = memoryview(mapping)
    assert view.readonly
    with pytest.raises(BufferError):
        mapping.close()
    view.release()
    mapping.close()
    mapping.close()
    with pytest.raises(ValueError, match="closed"):
        memoryview(mapping)
    with pytest.raises(OSError, match="descriptor"):
        Mapping(-1, 4096)
