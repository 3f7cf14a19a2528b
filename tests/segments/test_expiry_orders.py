"""What an expired record hides stays hidden, whatever happens between the writes: seals, sweeps, kills, compactions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from kio import wire
from kio.opbatch import DONE, NUMBER, TTL
from kio.segments import rewrite
from kio.segments.expiry import SWEEP_INTERVAL_S
from kio.segments.options import StoreOptions
from tests.cluster.daemon import FULL, scaled
from tests.segments.faulty_disk import CarelessDisk
from tests.segments.opened import checkpoints_in
from tests.segments.support import Driven, Time, operation, put

TTL_MS: Final = 1000
#: Compacted is what is asked for, and segments with nothing live in them.
OPTIONS: Final = StoreOptions(segment_bytes=1024, space_amplification=1000.0, checkpoint_interval_s=1.0)


class Story:
    """A shard, its clock, and what is done to the key "k"; beside it stands a key that never changes."""

    def __init__(self, path: Path) -> None:
        self.time = Time()
        self.driven = Driven(path, OPTIONS, CarelessDisk(), clock=self.time.clock)
        self.driven.put(b"other", b"1")

    def set(self, value: bytes) -> None:
        self.driven.put(b"k", value)

    def set_for_a_second(self, value: bytes) -> None:
        assert self.driven.one(put(b"k", value, flags={TTL: TTL_MS})).status == DONE

    def delete(self) -> None:
        assert self.driven.delete(b"k")

    def expire(self) -> None:
        self.time.pass_by(TTL_MS)

    def expect(self, value: bytes | None) -> None:
        held = {b"other": b"1"} | ({} if value is None else {b"k": value})
        assert self.driven.items() == held
        self.driven.maintain()
        assert self.driven.answers([b"k", b"other"]) == {b"k": value, b"other": b"1"}
        assert (self.driven.items(), self.driven.count()) == (held, len(held))
        assert self.driven.store.stats()["live_bytes"] == sum(
            (24 + 8 * (key == b"k" and value == b"for a second") + len(key) + len(found) + 7) // 8 * 8
            for key, found in held.items()
        )


# ---- what may happen between two steps ----


def kill(driven: Driven) -> None:
    driven.reopen()


def kill_and_lose_checkpoint(driven: Driven) -> None:
    """The next start reads every record."""
    driven.kill()
    for file in checkpoints_in(driven.path):
        file.unlink()
    driven.open()


def stop(driven: Driven) -> None:
    driven.restart()


def seal(driven: Driven) -> None:
    driven.seal()


def sweep(driven: Driven) -> None:
    """Nothing but that: no checkpoint is taken."""
    driven._clock_s += SWEEP_INTERVAL_S
    while driven.store._sweeper.slice(driven._clock_s):
        pass


def maintain(driven: Driven) -> None:
    """A sweep, a checkpoint of what it has left, and segments that are wholly dead are dropped."""
    driven.maintain()


def compact(driven: Driven) -> None:
    """Whatever has dead bytes."""
    driven.compact()


def compact_newest(driven: Driven) -> None:
    """The segment that was just written, and no older one."""
    driven.seal()
    driven.rewrite(*driven.sealed_ids()[-1:])


def compact_oldest(driven: Driven) -> None:
    driven.seal()
    driven.rewrite(*driven.sealed_ids()[:1])


BETWEEN: Final[tuple[Callable[[Driven], None], ...]] = (
    kill_and_lose_checkpoint, kill, stop, seal, sweep, maintain, compact, compact_newest, compact_oldest,
)  # fmt: skip


#: Every so-maniest order is tried; all with FULL=1.
STEP: Final = 1 if FULL else 3


def end(story: Story, value: bytes | None) -> None:
    """`value` is what "k" holds, now and after any number of starts."""
    story.expect(value)
    for again in (kill, kill_and_lose_checkpoint):
        again(story.driven)
        story.expect(value)
    story.driven.kill()


@scaled
@pytest.mark.parametrize("first", BETWEEN, ids=lambda action: action.__name__)
def test_an_older_value_never_comes_back_when_the_newer_one_has_expired(
    tmp_path: Path, first: Callable[[Driven], None]
) -> None:
    for number, (second, third) in enumerate(itertools.product(BETWEEN, repeat=2)):
        if sum(map(BETWEEN.index, (first, second, third))) % STEP:
            continue
        story = Story(tmp_path / str(number))
        story.set(b"v1")
        first(story.driven)
        story.set_for_a_second(b"v2")
        second(story.driven)
        story.expire()
        third(story.driven)
        BETWEEN[number // len(BETWEEN) - number % len(BETWEEN)](story.driven)
        end(story, None)


@pytest.mark.parametrize("seed", range(20))
def test_a_key_is_what_was_last_done_to_it_in_any_story(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    story = Story(tmp_path / "shard")
    value: bytes | None = None
    expires_ms = 0
    for step in range(30):
        if value is not None and expires_ms and story.time.wall_ms >= expires_ms:
            value = None
        what = chance.choice(["set", "set for a second", "set for a second", "expire", "delete"])
        if what == "set":
            value, expires_ms = b"%d" % step, 0
            story.set(value)
        elif what == "set for a second":
            value, expires_ms = b"for a second", story.time.wall_ms + TTL_MS
            story.set_for_a_second(value)
        elif what == "expire":
            story.expire()
            value = None if expires_ms else value
            if chance.random() < 0.7:
                story.expect(value)
        elif value is not None:
            story.delete()
            value = None
        for _ in range(chance.randrange(3)):
            chance.choice(BETWEEN)(story.driven)
    end(story, value)


def test_what_expires_at_any_moment_of_a_compaction_is_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrite, "HINTS_PER_SLICE", 2)
    moment, is_over = 0, False
    while not is_over:
        time = Time()
        options = StoreOptions(segment_bytes=4096, space_amplification=1000.0, checkpoint_interval_s=1.0)
        driven = Driven(tmp_path / str(moment), options, CarelessDisk(), clock=time.clock)
        driven.replies(*[put(b"%d" % i, b"", flags={TTL: TTL_MS} if i % 2 else {}) for i in range(20)])
        driven.put(b"dead", b"")
        driven.delete(b"dead")
        driven.seal()
        assert driven.one(operation(wire.OP_COMPACT)).status == NUMBER
        is_over = run_until(driven, moment)
        time.pass_by(TTL_MS)
        # Another sweep while the compaction goes on, and the last one when it is over.
        run_until(driven, 1)
        driven.maintain()
        assert driven.store.stats()["compactions"] == 1
        assert driven.count() == len(driven.items()) == 10
        driven.kill()
        moment += 1
    assert moment > 20


def run_until(driven: Driven, moment: int) -> bool:
    """Run that many slices or jobs of maintenance, a sweep before each; True when nothing was left before that."""
    idle = 0
    while moment and idle < 3:
        moment -= 1
        driven._clock_s += 10
        if not driven.store.maintain(driven._clock_s):
            job = driven.store.sync_job() or driven.store.background_job()
            idle += job is None
            if job is not None:
                idle = 0
                job.run()
                driven.store.finish(job)
    return idle == 3
