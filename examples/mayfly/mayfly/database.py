import secrets
import sqlite3
from contextlib import contextmanager

from flask import current_app, g

# A note's text is in `notes` only, and leaves with its row. The receipt stays, so that the sender can see what
# became of the note, and a second reader is told that there was one.
SCHEMA = (
    """CREATE TABLE IF NOT EXISTS settings (
        name TEXT PRIMARY KEY,
        value BLOB NOT NULL
    )""",
    """CREATE TABLE IF NOT EXISTS notes (
        id TEXT PRIMARY KEY,
        text TEXT NOT NULL,
        password TEXT,               -- as werkzeug.security hashes it; NULL for none
        tries INTEGER NOT NULL       -- how many passwords may still be tried
    )""",
    """CREATE TABLE IF NOT EXISTS receipts (
        id TEXT PRIMARY KEY,
        owner TEXT NOT NULL,
        label TEXT NOT NULL,
        protected INTEGER NOT NULL,
        created INTEGER NOT NULL,    -- seconds since 1970, as all times here
        expires INTEGER NOT NULL,
        fate TEXT,                   -- NULL while the note waits; read, withdrawn, expired, guessed
        ended INTEGER
    )""",
    "CREATE INDEX IF NOT EXISTS receipts_by_owner ON receipts (owner, created)",
)


def connect(path):
    # Transactions are begun by hand, in transaction() below.
    db = sqlite3.connect(path, timeout=10, isolation_level=None)
    db.row_factory = sqlite3.Row
    # Overwrite what is deleted with zeros, instead of leaving it in the file's free pages.
    db.execute("PRAGMA secure_delete = ON")
    return db


@contextmanager
def transaction(db):
    """Runs a block as one transaction. The write lock is taken at the start, so that what the block reads stays true."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def prepare(path):
    """Makes the tables, unless they are there. Returns the key that signs the cookies.

    Every worker does this when it starts. The first to come makes the key; the others find it.
    """
    db = connect(path)
    try:
        with transaction(db):
            for statement in SCHEMA:
                db.execute(statement)
            db.execute("INSERT OR IGNORE INTO settings VALUES ('secret_key', ?)", (secrets.token_bytes(32),))
            return db.execute("SELECT value FROM settings WHERE name = 'secret_key'").fetchone()["value"]
    finally:
        db.close()


def get():
    """This request's connection."""
    if "db" not in g:
        g.db = connect(current_app.config["DATABASE"])
    return g.db


def close(_error):
    db = g.pop("db", None)
    if db is not None:
        db.close()
