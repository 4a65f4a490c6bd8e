"""Requests as ordinary Flask apps get them, for the profile that the guest's CPython is compiled with.

Runs in the native build, which has neither zlib nor SQLite. Loops have fixed counts, so that the same build gives the
same profile.
"""

import binascii
import io
import sys
import types

# Flask's packages import it, but these requests have no use for it: itsdangerous would keep what it makes shorter.
zlib = types.ModuleType("zlib")
zlib.crc32 = zlib.adler32 = binascii.crc32
zlib.compress = lambda data: data
sys.modules["zlib"] = zlib

import flask
from jinja2 import DictLoader

app = flask.Flask(__name__)
app.secret_key = "not a secret"
app.jinja_loader = DictLoader(
    {
        "base.html": """<!doctype html>
<title>{% block title %}{% endblock %}</title>
<nav>{% for name in ["Start", "Orders"] %}<a href="{{ url_for('orders') }}#{{ name|lower }}">{{ name }}</a>{% endfor %}</nav>
{% with messages = get_flashed_messages() %}{% for message in messages %}<p>{{ message }}</p>{% endfor %}{% endwith %}
{% block content %}{% endblock %}""",
        "orders.html": """{% extends "base.html" %}
{% macro amount(cents) %}{{ "%.2f"|format(cents / 100) }}{% endmacro %}
{% block title %}{{ title }}{% endblock %}
{% block content %}<h1>{{ title|upper }} ({{ rows|length }})</h1>
<table>{% for row in rows if row.open %}
<tr class="{{ loop.cycle('a', 'b') }}"><td>{{ loop.index }}<td>{{ row.customer }}<td>{{ amount(row.total) }}
<td>{{ row.tags|join(", ") }}<td>{{ row.note|default("none", true)|truncate(20) }}</tr>{% else %}<tr><td>None</tr>{% endfor %}
</table>{% endblock %}""",
    }
)

ROWS = [
    {
        "customer": f"Smith & Sons <{number}>",
        "total": 995 + number * 131,
        "tags": ["new", "paid" if number % 3 else "late"],
        "note": "leave it at the door, please" if number % 4 else "",
        "open": number % 5 != 0,
    }
    for number in range(40)
]


@app.route("/")
def hello():
    return "Hello\n"


@app.route("/orders")
def orders():
    return flask.render_template("orders.html", title="Orders", rows=ROWS)


@app.route("/api/orders/<int:number>")
def order(number):
    return flask.jsonify(id=number, rows=ROWS[:20], share=number / 7, next=None)


@app.post("/api/orders")
def add_order():
    data = flask.request.get_json()
    return flask.jsonify(total=sum(line["price"] * line["count"] for line in data["lines"])), 201


@app.post("/login")
def login():
    name = flask.request.form["name"].strip().casefold()
    if not name or len(flask.request.form.getlist("role")) != 2:
        flask.abort(400)
    flask.session["name"] = name
    flask.flash(f"Welcome, {name}")
    return flask.redirect(flask.url_for("orders", page=2))


@app.post("/upload")
def upload():
    sent = flask.request.files["file"]
    return {"name": sent.filename, "lines": sum(1 for _ in sent.stream)}


@app.before_request
def count_visit():
    flask.g.agent = flask.request.user_agent.string


@app.after_request
def add_field(response):
    response.headers["X-Frame-Options"] = "DENY"
    return response


class Client:
    """One WSGI call after the other, as lib/wasgi/handler.py makes them; keeps the cookie."""

    def __init__(self):
        self.cookie = ""

    def request(self, method, target, expected, body=b"", content_type=""):
        path, _, query = target.partition("?")
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_URI": target,
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "8000",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "REMOTE_PORT": "50123",
            "HTTP_HOST": "shop.example:8000",
            "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101",
            "HTTP_ACCEPT": "text/html,application/xhtml+xml,*/*;q=0.8",
            "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.5",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BufferedReader(io.BytesIO(body)),
            "wsgi.errors": sys.stderr,
            "wsgi.multithread": False,
            "wsgi.multiprocess": True,
            "wsgi.run_once": False,
            "wsgi.input_terminated": True,
        }
        if body:
            environ["CONTENT_LENGTH"] = str(len(body))
            environ["CONTENT_TYPE"] = content_type
        if self.cookie:
            environ["HTTP_COOKIE"] = self.cookie
        head = []

        def start_response(status, headers, exc_info=None):
            head[:] = status, headers

        result = app(environ, start_response)
        reply = b"".join(result)
        result.close()
        status, headers = head
        if not status.startswith(str(expected)):
            raise SystemExit(f"{method} {target}: {status}: {reply!r}")
        for name, value in headers:
            if name == "Set-Cookie":
                self.cookie = value.partition(";")[0]


FORM = "application/x-www-form-urlencoded"
MULTIPART = "multipart/form-data; boundary=cut"
FILE = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n' + b"a line\n" * 100 + b"\r\n--cut--\r\n"
ORDER = b'{"lines": [{"price": 2.5, "count": 3, "name": "caf\\u00e9"}, {"price": 10, "count": 1, "name": "plain"}]}'

client = Client()
for turn in range(1500):
    # The short ones more often: they show what each request costs whatever the app does.
    for again in range(4):
        Client().request("GET", "/", 200)
    client.request("GET", "/api/orders/17?full=1&x=%20y", 200)
    client.request("POST", "/api/orders", 201, ORDER, "application/json")
    client.request("POST", "/login", 302, b"name=+Ada+L%C3%B6&role=admin&role=user", FORM)
    if turn % 3 == 0:
        client.request("GET", "/orders", 200)
        client.request("POST", "/upload", 200, FILE, MULTIPART)
        client.request("GET", "/nothing/here", 404)
        client.request("PUT", "/orders", 405)
