// Package inspect shows the HTTP that passes a connection, by reading along.
//
//	in := inspect.New(inspect.Config{})
//	defer in.Close()
//	…
//	up, err := net.Dial("tcp", "127.0.0.1:8089")
//	up = in.Tap(up, inspect.Meta{Tunnel: "app"}, redial) // then relay as ever
//	…
//	err = in.Serve(ctx, listener, status) // the page and the API
//
// A tapped connection carries the same bytes at the same time as before. What
// is written to it (requests) and read from it (answers) is copied into a
// bounded queue and parsed elsewhere:
//
//	relay ── Write ──> tap ──> upstream
//	                    │ copy, or a gap when the queue is full
//	                    ▼
//	              session queue ──> worker: parse ──> exchange in the ring
//	                                                     │
//	                              page, API, HAR <───────┘
//
// Nothing that goes wrong while parsing reaches the traffic: an exchange is
// then marked as cut or opaque. All memory is bounded: queues and ring
// together by Config.MaxBytes, the oldest exchanges go first. While these would go
// before anybody could look at them, bodies are kept short. There is a
// goroutine only while there is something to parse, and an idle connection
// costs a few hundred bytes.
//
// Values of headers that carry secrets are masked in whatever leaves the
// process, unless Config.Unmask is set. Replay sends the original ones, to the
// upstream that had them before and nowhere else.
package inspect
