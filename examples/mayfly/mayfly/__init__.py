"""Notes that live until they are read: one reader, once."""

import os

from .app import create_app

app = create_app(
    os.environ.get("MAYFLY_DATABASE", "/data/mayfly.sqlite3"),
    https=os.environ.get("MAYFLY_HTTPS") == "yes",
)
