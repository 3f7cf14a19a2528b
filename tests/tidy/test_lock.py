"""requirements.lock is whole: every dependency is in it, pinned and hashed, and it names no place to fetch from."""

from __future__ import annotations

import re
import tomllib

from tests.tidy.tree import ROOT

LOCK = (ROOT / "requirements.lock").read_text(encoding="utf-8")


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_dependency_is_locked() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    wanted = [
        *document["project"]["dependencies"],
        *document["project"]["optional-dependencies"]["dev"],
        *document["build-system"]["requires"],
    ]
    locked = set(re.findall(r"^([a-z0-9-]+)==", LOCK, re.MULTILINE))
    assert {normal(re.split(r"[<>=~!\[; ]", name)[0]) for name in wanted} <= locked


def test_every_requirement_is_pinned_and_hashed_and_none_says_where_it_comes_from() -> None:
    requirements = re.split(r"\n(?=\S)", LOCK.strip())
    requirements = [text for text in requirements if not text.startswith("#")]
    assert len(requirements) > 20
    for text in requirements:
        assert re.match(r"[a-z0-9-]+==[0-9][^ ]*", text), text.splitlines()[0]
        assert "--hash=sha256:" in text, text.splitlines()[0]
    assert "://" not in LOCK
    assert "--index" not in LOCK
