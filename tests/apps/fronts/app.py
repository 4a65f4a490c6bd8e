"""What the tests ask for through web servers in front: a Flask app, with wsgiref's validator around it."""

import os
import time
from pathlib import Path
from wsgiref.validate import validator

from flask import Flask, Response, jsonify, redirect, request, url_for

app = Flask(__name__)
# The validator wants sizes for each read, and Flask names one if it has a limit.
app.config["MAX_CONTENT_LENGTH"] = 64 << 20

DATA = Path("/data")
LINE = b"0123456789abcdef" * 4096


@app.get("/")
def index():
    environ = {key: value for key, value in request.environ.items() if isinstance(value, str)}
    return {"environ": environ, "url": request.url, "cookies": request.cookies, "args": request.args}


@app.get("/named/<path:name>")
def named(name):
    return {"name": name, "args": request.args, "url": url_for("named", name=name, q="ü")}


@app.post("/form")
def form():
    return {"form": request.form, "length": request.content_length}


@app.post("/upload")
def upload():
    """Tells how long the body is, and a thousand bytes from its middle."""
    pieces = []
    while piece := request.stream.read(64 << 10):
        pieces.append(piece)
    body = b"".join(pieces)
    middle = len(body) // 2
    return {"length": len(body), "middle": body[middle : middle + 1000].decode("latin-1")}


@app.get("/download")
def download():
    size = request.args.get("size", type=int)
    pieces = (LINE for _ in range(size // len(LINE)))
    return Response(pieces, content_type="application/octet-stream")


def wait_for(name):
    deadline = time.monotonic() + 20
    while not (DATA / name).exists():
        if time.monotonic() > deadline:
            return "late"
        time.sleep(0.02)
    return "in time"


@app.get("/stream/<token>")
def stream(token):
    """Goes on when the test has read the first line."""

    def lines():
        yield "first"  # without a line's end, for which output may be kept
        yield wait_for(f"read-{token}")

    # Else nginx collects it.
    return Response(lines(), content_type="text/plain", headers={"X-Accel-Buffering": "no"})


@app.get("/endless/<token>")
def endless(token):
    """Tells how many bytes were taken off it when nobody wants more."""

    def pieces():
        count = 0
        try:
            while True:
                yield LINE
                count += len(LINE)
        finally:
            (DATA / f"left-{token}").write_text(str(count))

    return Response(pieces(), content_type="application/octet-stream")


@app.get("/cut")
def cut():
    """Ends before its end."""

    def pieces():
        yield LINE
        raise RuntimeError("cut on purpose")

    return Response(pieces(), content_type="application/octet-stream")


@app.get("/page")
def page():
    response = Response("a page\n", content_type="text/plain")
    response.add_etag()
    return response.make_conditional(request)


@app.get("/away")
def away():
    return redirect(url_for("page", next="/ü"))


@app.get("/moved")
def moved():
    return redirect(url_for("page"), 308)


@app.get("/cookies")
def cookies():
    response = jsonify(request.cookies)
    response.set_cookie("a", "1")
    response.set_cookie("b", "2", path="/em")
    response.set_cookie("long", "x" * request.args.get("long", 0, type=int))
    return response


app.wsgi_app = validator(app.wsgi_app)
