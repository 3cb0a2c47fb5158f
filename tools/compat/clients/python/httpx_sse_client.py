"""The package `httpx-sse`, as its README shows it."""

import httpx
from httpx_sse import connect_sse

import seen

client = httpx.Client(timeout=httpx.Timeout(10, read=40))


def listen(cursor):
    with connect_sse(client, "GET", seen.URL, headers=seen.headers(cursor)) as source:
        for sse in source.iter_sse():
            yield sse.id, sse.event, sse.data, sse.retry


seen.follow(listen, httpx.TransportError)
