"""Replies that a server may compress, and some that it may not. What is plain WSGI is under wsgiref.validate."""

import gzip
import warnings
from wsgiref.validate import WSGIWarning, validator

from flask import Flask, Response, request, send_file

warnings.simplefilter("error", WSGIWarning)

app = Flask(__name__, static_folder=None)
TEXT = "".join(f"<p>{number} is a number</p>\n" for number in range(1000))


@app.get("/page")
def page():
    response = Response(TEXT, mimetype="text/html")
    response.headers["Accept-Ranges"] = "bytes"
    response.add_etag()
    return response.make_conditional(request)


@app.get("/short")
def short():
    return "short"


@app.get("/missing")
def missing():
    return TEXT, 404


@app.get("/failed")
def failed():
    return TEXT, 500


@app.get("/kept")
def kept():
    return TEXT, {"Cache-Control": "no-transform"}


@app.get("/encoded")
def encoded():
    return gzip.compress(TEXT.encode()), {"Content-Encoding": "gzip"}


@app.get("/varies")
def varies():
    return TEXT, {"Vary": "Cookie, Accept-Encoding"}


@app.get("/file")
def file():
    return send_file("/data/large.txt", conditional=True)


@app.get("/nothing")
def nothing():
    return "", 204


@app.post("/decoded")
def decoded():
    return gzip.decompress(request.get_data()), {"Content-Type": "application/octet-stream"}


@validator
def events(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/event-stream")])
    return after_each_byte(environ["wsgi.input"])


def after_each_byte(body):
    number = 0
    while body.read(1):
        number += 1
        yield b"data: event %d\n\n" % number


@validator
def stream(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (f"line {number}\n".encode() for number in range(20_000))


@validator
def endless(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter(lambda: b"for ever and ever, " * 1000, None)


@validator
def broken(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "20000")])
    return iter([b"x" * 10_000])


PLAIN = {"/events": events, "/stream": stream, "/endless": endless, "/broken": broken}


def application(environ, start_response):
    return PLAIN.get(environ["PATH_INFO"], app)(environ, start_response)
