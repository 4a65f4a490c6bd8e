"""Hello, and views that take the CPU: for ever, for so many seconds, for some milliseconds."""

import time

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "<h1>Hello There!</h1>\n"


@app.route("/burn")
def burn():
    while True:
        pass


@app.route("/burn/<float:seconds>")
def burn_for(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "burnt"


@app.route("/work")
def work():
    return str(sum(range(200_000)))
