"""`requests` alone, reading lines."""

import requests

import seen


def listen(cursor):
    response = requests.get(seen.URL, stream=True, headers=seen.headers(cursor), timeout=(10, 40))
    fields = {}
    for line in response.iter_lines():
        if line:
            name, _, value = line.decode().partition(": ")
            fields[name] = value
        else:
            if "data" in fields:
                yield fields.get("id"), fields.get("event"), fields["data"], fields.get("retry")
            fields = {}


seen.follow(listen, requests.RequestException)
