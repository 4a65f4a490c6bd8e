"""A small reading list: pages for people in one blueprint, JSON for programs in the other."""

import os

from flask import Flask, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from .pages import pages
from .service import service

app = Flask(__name__)
app.config["INFO_TOKEN"] = os.environ.get("INFO_TOKEN")
app.register_blueprint(pages)
app.register_blueprint(service)


@app.errorhandler(HTTPException)
def show_error(error):
    """Programs get JSON, people get a page, both with the right status."""
    if request.blueprint == "service" or request.path.startswith("/api/"):
        response = error.get_response()
        response.data = jsonify(error=error.name, detail=error.description).data
        response.content_type = "application/json"
        return response
    return render_template("error.html", error=error), error.code
