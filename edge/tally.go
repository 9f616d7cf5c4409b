package edge

import (
	"net"
	"net/http"
	"sync/atomic"
)

// The ways in for visitors, as the numbers name them.
const (
	wayHTTPS = "https"
	wayHTTP  = "http"
	wayHTTP3 = "http3"
	wayTCP   = "tcp" // a public TCP port
	wayTLS   = "tls" // on the HTTPS port, carried and not served: tls tunnels, and those whose TLS ends at the agent
)

// Why a visitor's TLS handshake came to nothing.
const (
	refusedFull    = "too_many"     // as many connections as one address, or all, may have before the end of theirs
	refusedHasty   = "too_fast"     // more new sessions than one address may begin, see Config.Handshakes
	refusedHello   = "bad_hello"    // no ClientHello, or none in time
	refusedUnknown = "unknown_name" // no tunnel and no certificate has the name
	refusedFailed  = "failed"       // broken off, too slow, or nothing that both sides can do
)

// answerClasses are by the first digit of an answer's status.
var answerClasses = [...]string{"other", "2xx", "3xx", "4xx", "5xx"}

// tally counts what the front does, since the edge started. It is written where
// visitors are served and read whenever somebody asks.
type tally struct {
	ways    map[string]*wayTally      // by way; not changed after newTally
	refused map[string]*atomic.Uint64 // handshakes, by reason; likewise

	toVisitor, fromVisitor atomic.Uint64 // bytes of carried connections that have ended
}

// wayTally counts one way in.
type wayTally struct {
	total    atomic.Uint64                     // connections
	open     atomic.Int64                      // of them
	requests atomic.Int64                      // under way
	answers  [len(answerClasses)]atomic.Uint64 // requests that have ended, by answerClasses
}

func newTally() *tally {
	t := &tally{ways: make(map[string]*wayTally), refused: make(map[string]*atomic.Uint64)}
	for _, way := range []string{wayHTTPS, wayHTTP, wayHTTP3, wayTCP, wayTLS} {
		t.ways[way] = new(wayTally)
	}
	for _, reason := range []string{refusedFull, refusedHasty, refusedHello, refusedUnknown, refusedFailed} {
		t.refused[reason] = new(atomic.Uint64)
	}
	return t
}

// opened counts a connection; the caller calls closed in the end.
func (w *wayTally) opened() {
	w.total.Add(1)
	w.open.Add(1)
}

func (w *wayTally) closed() { w.open.Add(-1) }

// state is http.Server.ConnState. A connection that was upgraded is not the
// server's any more, and counts as a request until it ends.
func (w *wayTally) state(_ net.Conn, s http.ConnState) {
	switch s {
	case http.StateNew:
		w.opened()
	case http.StateHijacked, http.StateClosed:
		w.closed()
	}
}

// answered counts a request that has ended. Status 0: it was upgraded, or broken
// off before there was an answer.
func (w *wayTally) answered(status int) {
	class := status/100 - 1
	if class < 1 || class >= len(answerClasses) {
		class = 0
	}
	w.answers[class].Add(1)
}
