package edge

import (
	"log/slog"
	"net"
	"sync"
	"time"
)

// hastyEvery is the least time between two lines that tell of hasty visitors.
const hastyEvery = time.Minute

// hasty tells the edge's owner of addresses that begin TLS faster than they may: it
// may be an attack, and it may be another machine through which all visitors come.
type hasty struct {
	mu    sync.Mutex // guards all below
	last  time.Time  // a line was written
	count int        // since then
}

// turnedAway takes note of a visitor that was.
func (h *hasty) turnedAway(log *slog.Logger, visitor net.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count++
	now := time.Now()
	if !h.last.IsZero() && now.Sub(h.last) < hastyEvery {
		return
	}
	log.Warn("an address begins TLS faster than --handshake-rate allows; visitors are turned away", "visitor", visitor, "count", h.count)
	h.last, h.count = now, 0
}
