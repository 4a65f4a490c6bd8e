"""One SQLite file for several workers."""

import sqlite3
import time

PLAIN = [("Content-Type", "text/plain")]


def connect():
    db = sqlite3.connect("/data/counter.sqlite3", timeout=20, isolation_level=None)
    db.execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, n INTEGER NOT NULL)")
    db.execute("INSERT OR IGNORE INTO counter VALUES (1, 0)")
    return db


def application(environ, start_response):
    db = connect()
    try:
        result = VIEWS[environ["PATH_INFO"]](db)
    finally:
        db.close()
    start_response("200 OK", PLAIN)
    return [str(result).encode()]


def add(db):
    """Reads, then writes what it read plus one: without a lock in between, updates get lost."""
    db.execute("BEGIN IMMEDIATE")
    (n,) = db.execute("SELECT n FROM counter").fetchone()
    time.sleep(0.002)
    db.execute("UPDATE counter SET n = ?", (n + 1,))
    db.execute("COMMIT")
    return n + 1


def read(db):
    return db.execute("SELECT n FROM counter").fetchone()[0]


def check(db):
    return db.execute("PRAGMA integrity_check").fetchone()[0]


def hold(db):
    """Never ends, with the lock held and a change half done. What holds it is killed."""
    db.execute("PRAGMA cache_size = 1")
    db.execute("BEGIN EXCLUSIVE")
    db.execute("UPDATE counter SET n = 1000000")
    db.execute("CREATE TABLE half (x)")
    db.executemany("INSERT INTO half VALUES (?)", [("x" * 1000,) for _ in range(200)])
    while True:
        try:
            time.sleep(1e6)
        except BaseException:
            pass


VIEWS = {"/add": add, "/read": read, "/check": check, "/hold": hold}
