"""Replies that are files, as Flask and as plain WSGI apps give them."""

import io

from flask import Flask, Response, request, send_file

app = Flask(__name__, static_folder=None)
last = None


@app.get("/code")
def code():
    return send_file("/app/app.py", mimetype="text/plain", conditional=True)


@app.get("/data/<name>")
def data(name):
    return send_file(f"/data/{name}", conditional=True)


@app.get("/memory")
def memory():
    return send_file(io.BytesIO(b"from memory"), mimetype="text/plain")


@app.get("/temporary")
def temporary():
    with open("/tmp/t", "wb") as file:
        file.write(b"temporary")
    return send_file("/tmp/t", mimetype="text/plain")


@app.get("/closed")
def closed():
    return str(last.closed)


def raw(environ, start_response):
    """What is left of a file after its first bytes; Content-Length as asked for."""
    global last
    asked = dict(pair.split("=") for pair in environ["QUERY_STRING"].split("&") if pair)
    headers = [("Content-Type", "text/plain")]
    if "length" in asked:
        headers.append(("Content-Length", asked["length"]))
    write = start_response("200 OK", headers)
    if "written" in asked:
        write(b"<")
    last = open("/data/" + asked["name"], asked.get("mode", "rb"))
    last.read(int(asked.get("skip", "0")))
    return environ["wsgi.file_wrapper"](last)


def application(environ, start_response):
    if environ["PATH_INFO"] == "/raw":
        return raw(environ, start_response)
    return app(environ, start_response)
