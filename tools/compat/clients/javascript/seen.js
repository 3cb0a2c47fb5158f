// Prints one JSON line for each thing that a client sees.

export const url = process.env.EVENTS_URL
export const token = process.env.ACCESS_TOKEN

/** The events that the tool judges by. */
export const NAMES = ['Ready', 'Heartbeat', 'Reset', 'Goodbye', 'NewMessage']

export function say(seen) {
  process.stdout.write(`${JSON.stringify(seen)}\n`)
}

export function event(name, data) {
  say({ seen: 'event', event: name, data: JSON.parse(data) })
}
