"""Reads a body whole and sends it back."""

from flask import Flask, Response, request

app = Flask(__name__)


@app.route("/", methods=["POST"])
def echo():
    return Response(request.get_data(cache=False), mimetype="application/octet-stream")
