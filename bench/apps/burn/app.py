"""Hello, and beside it a view that never ends."""

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "<h1>Hello There!</h1>\n"


@app.route("/burn")
def burn():
    while True:
        pass
