"""The application."""

import flask

app = flask.Flask(__name__)


@app.get("/")
def hello():
    """Answer by a short text."""
    return "Hello, world!\n"
