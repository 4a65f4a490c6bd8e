"""What a guide has beside its uwsgi.ini."""

from flask import Flask

app = Flask(__name__)


@app.route("/")
def index():
    return "Hello from the third guide"
