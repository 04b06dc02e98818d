"""The criterion of write-sql.md: does the answer run, and does it give the right rows?"""

import re
import sqlite3

TABLES = """
CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, city TEXT);
CREATE TABLE product(id INTEGER PRIMARY KEY, name TEXT, price REAL, stock INTEGER);
CREATE TABLE purchase(
    id INTEGER PRIMARY KEY, customer_id INTEGER, product_id INTEGER, amount INTEGER, day TEXT);
INSERT INTO customer VALUES (1, 'Ana', 'Porto'), (2, 'Ben', 'Lyon'), (3, 'Cleo', 'Lyon'),
    (4, 'Dan', 'Graz');
INSERT INTO product VALUES (1, 'lamp', 24.5, 3), (2, 'mug', 7, 0), (3, 'chair', 89, 12),
    (4, 'pen', 1.2, 0);
INSERT INTO purchase VALUES (1, 1, 1, 2, '2025-02-27'), (2, 2, 2, 6, '2025-03-01'),
    (3, 3, 3, 1, '2025-03-31'), (4, 2, 1, 1, '2025-03-31'), (5, 2, 4, 9, '2025-04-02');
"""
READING = 20, 21, 31, 33  # SQLITE_READ, _SELECT, _FUNCTION, _RECURSIVE: all that a query may do
STEPS = 2_000_000  # of SQLite's machine; a query that takes more is wrong


def check(response: str, expected: str, input: str) -> tuple[float, str]:
    """1 for the right rows, 0.3 for a query that gives others, 0 for what does not run."""
    fence = re.fullmatch(r"\s*```\w*\n(.*)```\s*", response, re.DOTALL)
    try:
        found, wanted = rows(fence[1] if fence else response or "nothing"), rows(expected)
    except (sqlite3.Error, sqlite3.Warning) as error:
        return 0.0, f"it does not run: {error}"
    if "ORDER BY" not in expected:
        found, wanted = sorted(found, key=repr), sorted(wanted, key=repr)
    return (1.0, "") if found == wanted else (0.3, f"it gives {found[:3]}, wanted {wanted[:3]}")


def rows(query: str) -> list[tuple[object, ...]]:
    """What a query gives on a fresh copy of the tables, which it may only read."""
    database = sqlite3.connect(":memory:")
    database.executescript(TABLES)
    database.set_authorizer(lambda action, *_: action not in READING)
    database.set_progress_handler(lambda: 1, STEPS)
    return database.execute(query).fetchmany(1000)
