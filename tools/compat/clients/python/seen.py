"""Prints one JSON line for each thing that a client sees, and resumes for clients that do not."""

import json
import os
import time

URL = os.environ["EVENTS_URL"]
HEADERS = {"Authorization": "Bearer " + os.environ["ACCESS_TOKEN"]}


def say(**seen):
    print(json.dumps(seen), flush=True)


def headers(cursor):
    """The headers of the next request."""
    return HEADERS | ({"Last-Event-ID": cursor} if cursor else {})


def follow(listen, network_error):
    """Calls `listen(cursor)` for id, event, data and retry of each event, and again when that ends."""
    cursor, pause = None, 1.0
    while True:
        try:
            for id, event, data, retry in listen(cursor):
                pause = int(retry) / 1000 if retry else pause
                say(seen="event", event=event, data=json.loads(data))
                cursor = id or cursor
            say(seen="ended", text="")
        except network_error as error:
            say(seen="ended", text=type(error).__name__)
        except Exception as error:
            say(seen="stopped", text=type(error).__name__)
            return
        time.sleep(pause)
