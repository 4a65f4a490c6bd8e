"""What a guide has beside its uwsgi.ini."""

from flask import Flask

application = Flask(__name__)


@application.route("/")
def index():
    return "Hello from the second guide"
