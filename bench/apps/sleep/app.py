"""Waits, as a view does that asks a slow service."""

import time

from flask import Flask

app = Flask(__name__)


@app.route("/")
def sleep():
    time.sleep(1)
    return "slept\n"
