"""Opens a log file and a database when it is imported and keeps both, as many small apps do."""

import logging
import sqlite3

logging.basicConfig(filename="/data/app.log", level=logging.INFO, format="%(message)s")
db = sqlite3.connect("/data/kept.sqlite3", timeout=20, isolation_level=None)
db.execute("CREATE TABLE IF NOT EXISTS seen (id INTEGER PRIMARY KEY, path TEXT)")


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/seen":
        reply = str(db.execute("SELECT count(*) FROM seen").fetchone()[0])
    else:
        logging.info(path)
        db.execute("INSERT INTO seen (path) VALUES (?)", (path,))
        reply = "noted"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [reply.encode()]
