// The package `eventsource`, as its README shows it with a header.

import { EventSource } from 'eventsource'

import { NAMES, event, say, token, url } from './seen.js'

const source = new EventSource(url, {
  fetch: (input, init) =>
    fetch(input, { ...init, headers: { ...init.headers, Authorization: `Bearer ${token}` } }),
})
for (const name of NAMES) {
  source.addEventListener(name, (message) => event(name, message.data))
}
source.addEventListener('error', (error) => {
  const seen = source.readyState === EventSource.CLOSED ? 'stopped' : 'ended'
  say({ seen, text: error.message ?? '' })
})
