// Sends each thing that a page sees to the tool that opened it, in order.

const parameters = new URLSearchParams(location.search)
export const url = parameters.get('url')
export const token = parameters.get('token')

/** The events that the tool judges by. */
export const NAMES = ['Ready', 'Heartbeat', 'Reset', 'Goodbye', 'NewMessage']

let last = Promise.resolve()

export function say(seen) {
  const body = JSON.stringify(seen)
  last = last.then(() => fetch(`/seen/${parameters.get('run')}`, { method: 'POST', body }))
}

export function event(name, data) {
  say({ seen: 'event', event: name, data: JSON.parse(data) })
}
