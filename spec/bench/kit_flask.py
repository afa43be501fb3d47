"""The starter kit's receiver as a peer for `neap bench post`: Flask and redis-py, one pipelined LPUSH a request. Run by Flask's server or gunicorn."""
import json
import os
import sys
from datetime import datetime, timezone

import redis
from flask import Flask, jsonify, request

app = Flask(__name__)
store = redis.Redis(unix_socket_path=os.environ["REDIS_SOCKET"])


@app.route("/receive", methods=["POST"])
def receive():
    items = request.get_json(force=True)
    if not isinstance(items, list):
        return jsonify({"error": "Expected a list of JSON objects"}), 400
    pipe, echo = store.pipeline(), []
    for item in items:
        name, value = item["sensor_name"], float(item["sensor_output"])
        entry = {"sensor_name": name, "sensor_output": value, "timestamp": datetime.now(timezone.utc).isoformat()}
        pipe.lpush("sensor_logs:" + name, json.dumps(entry))
        echo.append({"sensor_name": name, "sensor_output": value})
    pipe.execute()
    return jsonify({"status": "success", "data": echo})


if __name__ == "__main__":
    import logging

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app.run(host="127.0.0.1", port=int(sys.argv[1]))
