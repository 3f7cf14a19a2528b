"""What is stored of a password."""

from __future__ import annotations

import pytest

from kio.access import passwords
from kio.access.passwords import Cost, hashed, parse
from kio.errors import ConfigError

CHEAP = Cost(10, 1, 1)


def test_what_is_stored_is_of_its_password_and_of_no_other() -> None:
    stored = hashed(b"secret", CHEAP)
    assert stored.is_of(b"secret")
    for wrong in (b"", b"secre", b"secret ", b"Secret", b"secret\0"):
        assert not stored.is_of(wrong)


def test_it_comes_back_from_text_with_its_parameters() -> None:
    stored = hashed(b"secret", Cost(11, 2, 3))
    again = parse(str(stored))
    assert again == stored
    assert again.cost == Cost(11, 2, 3)
    assert again.is_of(b"secret")


def test_the_same_password_is_stored_differently_each_time() -> None:
    assert str(hashed(b"secret", CHEAP)) != str(hashed(b"secret", CHEAP))


def test_neither_the_password_nor_what_is_stored_of_it_is_in_a_repr() -> None:
    stored = hashed(b"secret", CHEAP)
    assert "secret" not in str(stored)
    assert repr(stored) == f"<password hashed with {CHEAP}>"


def test_the_cost_of_today_is_what_the_module_says() -> None:
    assert passwords.COST.memory_bytes == pytest.approx(32 << 20, rel=0.01)
    assert passwords.COST.memory_bytes < passwords.MEMORY_BYTES_MAX
    assert hashed(b"secret").is_of(b"secret")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "not what"),
        ("secret", "not what"),
        ("scrypt$15$8$1$AAAA", "not what"),
        ("scrypt$15$8$1$" + "A" * 500 + "$AAAA", "not what"),
        ("bcrypt$15$8$1$QUJDREVGR0g=$" + "A" * 43 + "=", "not what"),
        ("scrypt$9$8$1$QUJDREVGR0g=$" + "A" * 43 + "=", "out of range"),
        ("scrypt$21$1$1$QUJDREVGR0g=$" + "A" * 43 + "=", "out of range"),
        ("scrypt$15$0$1$QUJDREVGR0g=$" + "A" * 43 + "=", "out of range"),
        ("scrypt$15$8$17$QUJDREVGR0g=$" + "A" * 43 + "=", "out of range"),
        ("scrypt$20$16$1$QUJDREVGR0g=$" + "A" * 43 + "=", "would take"),
        ("scrypt$15$8$1$QUJD$" + "A" * 43 + "=", "less than 8"),
        ("scrypt$15$8$1$QUJDREVGR0g=$AAAA", "not 32"),
        ("scrypt$15$8$1$QUJDREVGR0g=$A", "base64"),
    ],
)
def test_what_is_no_stored_password_or_would_cost_too_much_is_refused_and_not_repeated(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        parse(text)
    assert not text or text not in str(caught.value)
