"""The package `sseclient-py`, as its README shows it with `requests`."""

import requests
import sseclient

import seen


def listen(cursor):
    response = requests.get(seen.URL, stream=True, headers=seen.headers(cursor), timeout=(10, 40))
    for event in sseclient.SSEClient(response).events():
        yield event.id, event.event, event.data, event.retry


seen.follow(listen, requests.RequestException)
