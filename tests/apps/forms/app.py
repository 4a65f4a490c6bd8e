"""A Flask app with what real ones do: uploads, sessions, hashed passwords, time zones, downloads."""

import hashlib
import io
import secrets
import tempfile
import uuid
from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import markupsafe
from flask import (
    Flask,
    Response,
    abort,
    jsonify,
    render_template_string,
    request,
    send_file,
    session,
    stream_with_context,
)
from werkzeug.security import check_password_hash, generate_password_hash

app = Flask(__name__)
app.secret_key = "a key for tests"


@app.post("/upload")
def upload():
    """Parses the form; werkzeug puts files above 500 kB into a temporary file."""
    files = []
    for name, sent in request.files.items(multi=True):
        digest = hashlib.sha256()
        size = 0
        while piece := sent.stream.read(65536):
            digest.update(piece)
            size += len(piece)
        files.append({"field": name, "name": sent.filename, "size": size, "sha256": digest.hexdigest()})
    return jsonify(files=files, fields=request.form.to_dict())


@app.post("/json")
def echo_json():
    return jsonify(request.get_json())


@app.post("/chunked")
def chunked():
    return jsonify(length=request.content_length, data=len(request.get_data()))


@app.route("/visits")
def visits():
    session["visits"] = session.get("visits", 0) + 1
    return f"{session['visits']}\n"


@app.route("/password/<method>")
def password(method):
    hashed = generate_password_hash("secret", method=method)
    return jsonify(
        method=hashed.partition("$")[0],
        right=check_password_hash(hashed, "secret"),
        wrong=check_password_hash(hashed, "Secret"),
    )


@app.route("/known-hashes")
def known_hashes():
    """RFC 7914 section 12 and RFC 6070-style vectors."""
    return jsonify(
        scrypt=hashlib.scrypt(b"password", salt=b"NaCl", n=1024, r=8, p=16, dklen=64).hex(),
        pbkdf2=hashlib.pbkdf2_hmac("sha256", b"passwd", b"salt", 1, 64).hex(),
        sha3=hashlib.sha3_256(b"abc").hexdigest(),
        blake2=hashlib.blake2b(b"abc", digest_size=16).hexdigest(),
    )


@app.route("/time/<path:zone>")
def time_in(zone):
    moment = datetime(2024, 7, 1, 12, tzinfo=timezone.utc).astimezone(ZoneInfo(zone))
    return moment.isoformat() + "\n"


@app.route("/now")
def now():
    return f"{datetime.now(timezone.utc).timestamp()}\n"


@app.route("/random")
def random_values():
    import random

    return jsonify(secrets=secrets.token_hex(16), uuid=str(uuid.uuid4()), random=random.random())


@app.route("/temporary")
def temporary():
    with tempfile.TemporaryFile() as file:
        file.write(b"t" * 3_000_000)
        file.seek(0)
        kept = len(file.read())
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/a", "w") as file:
            file.write("a")
    return f"{kept}\n"


@app.route("/download")
def download():
    """20 MB from a file object, with ranges."""
    return send_file(io.BytesIO(b"0123456789" * 2_000_000), mimetype="application/x-test", download_name="digits.bin")


@app.route("/static-file")
def static_file():
    return send_file("app.py", mimetype="text/plain", conditional=True)


@app.route("/stream")
def stream():
    @stream_with_context
    def chunks():
        for number in range(5):
            yield f"{request.args.get('word', 'x')}{number}\n"

    return Response(chunks(), mimetype="text/plain")


@app.route("/abort/<int:code>")
def give_up(code):
    abort(code)


@app.route("/boom")
def boom():
    raise RuntimeError("the view failed")


class Heading:
    def __html__(self):
        return "<h1>"


@app.route("/escape")
def escape():
    texts = ["plain", "", "<a href='x'>\"&\"</a>", "caf\u00e9 <", "\u20ac <", "\U0001f40d > &", 1.5, None]
    texts += [Heading(), markupsafe.Markup("<b>")]
    return jsonify(
        compiled=markupsafe._escape_inner.__module__ == "markupsafe._speedups",
        kind=type(markupsafe._escape_inner).__name__,
        escaped=[markupsafe.escape(text) for text in texts],
        formatted=markupsafe.Markup("<i>{}</i>").format("<"),
        page=render_template_string("<p title='{{ word }}'>{{ word|upper }} {{ word|safe }}</p>", word="<\u20ac & 'x'>"),
    )


@app.route("/sqlite")
def sqlite():
    import sqlite3

    db = sqlite3.connect(":memory:")
    db.execute("CREATE VIRTUAL TABLE notes USING fts5(text)")
    db.execute("INSERT INTO notes VALUES ('the quick brown fox')")
    found = db.execute("SELECT json_object('text', text) FROM notes WHERE notes MATCH 'quick'").fetchone()[0]
    return Response(found, mimetype="application/json")


@app.route("/caf\u00e9/<name>")
def accents(name):
    return f"{name}\n"
