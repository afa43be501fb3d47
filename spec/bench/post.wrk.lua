-- wrk's script for `neap bench post`: one reading a POST, as the starter kit's bridge sends it, within its sensor's limits.
wrk.method = "POST"
wrk.body = '[{"sensor_name": "temperature", "sensor_output": 65.5}]'
wrk.headers["Content-Type"] = "application/json"
