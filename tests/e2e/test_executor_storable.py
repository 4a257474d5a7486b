"""The promise of envelope.py against a real server: a result that passes can be stored as jsonb."""

import json
import random

import psycopg
import pytest

from reproq_listen.protocol.envelope import MAX_DEPTH, decode_envelope


def passes(value: str) -> str | None:
    return decode_envelope(f'{{"ok": true, "return": {value}}}'.encode("utf-8", "surrogatepass")).result


@pytest.mark.parametrize(
    "value",
    [
        "1e131071",
        "1e-16383",
        "0.001e131074",
        "9" * 131_072 + "." + "9" * 16_383,
        '"\\ud83d\\ude00"',
        '"\\\\u0000"',
        "[" * MAX_DEPTH + "]" * MAX_DEPTH,
        '{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH,
        json.dumps("x" * 1_000_000),
    ],
)
def test_executor_storable_limits_are_within_what_the_server_takes(conn: psycopg.Connection, value: str) -> None:
    """Each value is at the edge of what passes here."""
    text = passes(value)
    assert text is not None
    conn.execute("select %s::text::jsonb", (text,))


def test_random_results_that_pass_can_be_stored(conn: psycopg.Connection) -> None:
    """2,000 values full of NULs, half surrogates, huge numbers and repeated names; both outcomes occur often."""
    chance = random.Random(7)
    stored = refused = 0
    for _ in range(2000):
        text = passes(random_json(chance, 0))
        if text is None:
            refused += 1
        else:
            stored += 1
            conn.execute("select %s::text::jsonb", (text,))
    assert stored > 500
    assert refused > 100


def random_json(chance: random.Random, depth: int) -> str:
    """JSON text that a server may or may not take."""
    if depth > 4 or chance.random() < 0.5:
        letters = "".join(chance.choices('aé\0\ud800\udc00\\"u0😀', k=chance.randint(0, 5)))
        return chance.choice(
            [
                "null",
                f"{chance.randint(0, 10 ** chance.randint(1, 9))}e{chance.randint(131_000, 131_080)}",
                f"0.{chance.randint(0, 10**6)}e-{chance.randint(16_300, 16_400)}",
                json.dumps(letters),
                json.dumps(letters, ensure_ascii=False).encode("utf-8", "replace").decode(),
            ]
        )
    inner = [random_json(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    if chance.random() < 0.5:
        return f"[{','.join(inner)}]"
    return "{" + ",".join(f'"{chance.choice("ab")}":{value}' for value in inner) + "}"
