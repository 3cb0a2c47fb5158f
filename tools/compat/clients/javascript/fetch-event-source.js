// The package `@microsoft/fetch-event-source`. It is written for browsers; in Node it needs these two names.

globalThis.window = globalThis
globalThis.document = { hidden: false, addEventListener() {}, removeEventListener() {} }

const { fetchEventSource } = await import('@microsoft/fetch-event-source')
const { event, say, token, url } = await import('./seen.js')

try {
  await fetchEventSource(url, {
    headers: { Authorization: `Bearer ${token}` },
    openWhenHidden: true,
    onmessage: (message) => {
      if (message.data) event(message.event, message.data)
    },
    // Without this, it takes the server's end of the stream for its own and stops.
    onclose: () => {
      throw new Error('the stream has ended')
    },
    onerror: (error) => say({ seen: 'ended', text: error.message }),
  })
} catch (error) {
  say({ seen: 'stopped', text: error.message })
}
