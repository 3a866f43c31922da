"""The WSGI application: plain Flask, plain blocking calls."""

import psycopg
from flask import Flask, request

from vthreads import serve


def make_app(orders, cache, news, packing, metrics):
    app = Flask("shop")

    @app.post("/orders")
    def add():
        item = (request.get_json(silent=True) or {}).get("item")
        if not isinstance(item, str) or not item:
            return {"error": 'send JSON such as {"item": "teapot"}'}, 400
        order = orders.add(item)
        packing.ring()
        news.publish("new", order)
        return order, 201

    @app.get("/orders/<int:number>")
    def show(number):
        order = cache.find(number) or orders.find(number)
        return order or ({"error": f"no order {number}"}, 404)

    @app.get("/report")
    def report():
        serve.set_deadline(1)  # shorter than for other requests: a late report is useless
        return orders.count()

    @app.route("/news", websocket=True)
    def follow():
        news.follow(serve.websocket(request.environ))
        return ""

    @app.errorhandler(psycopg.Error)
    def no_database(error):
        app.logger.warning("database: %s", error)
        return {"error": "the database does not answer"}, 503, {"Retry-After": "1"}

    @app.after_request
    def count(response):
        metrics.count(request.method, response.status_code)
        return response

    return app
