import hashlib
import hmac

from flask import Blueprint, Response, abort, current_app, jsonify, request

from .books import BOOKS, find

service = Blueprint("service", __name__)


@service.route("/info")
def info():
    """What is served, for those who know the token."""
    expected = current_app.config["INFO_TOKEN"]
    given = request.args.get("token", "")
    if not expected or not hmac.compare_digest(given.encode(), expected.encode()):
        abort(400, "This needs ?token= with the right token.")
    return jsonify(app="library", books=len(BOOKS))


@service.route("/api/books")
def books():
    before = request.args.get("before", type=int)
    return jsonify([book for book in BOOKS if before is None or book["year"] < before])


@service.route("/api/books/<slug>")
def book(slug):
    found = find(slug)
    if found is None:
        abort(404, f"There is no book called {slug!r} here.")
    return jsonify(found)


@service.route("/api/sum", methods=["POST"])
def add():
    """Adds the numbers of a JSON list."""
    numbers = request.get_json()
    if not isinstance(numbers, list) or not all(type(n) in (int, float) for n in numbers):
        abort(400, "Send a JSON list of numbers.")
    return jsonify(sum=sum(numbers))


@service.route("/upload", methods=["POST"])
def upload():
    """Tells what arrived in the form field `file`; with `?echo=1` sends the bytes back instead."""
    sent = request.files.get("file")
    if sent is None or not sent.filename:
        abort(400, "Send a file in the form field named file.")
    if request.args.get("echo"):
        return Response(sent.read(), mimetype=sent.mimetype or "application/octet-stream")
    digest = hashlib.file_digest(sent.stream, "sha256")
    size = sent.stream.tell()
    return jsonify(name=sent.filename, type=sent.mimetype, size=size, sha256=digest.hexdigest())
