package relay

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

const (
	// Handshakes is how many TLS sessions one address may begin each second, where
	// nobody says otherwise: a tenth of what one core can do.
	Handshakes = 200

	// paceBurst is how much may be begun ahead of the pace, as a time: an office that
	// comes back from lunch.
	paceBurst = 10 * time.Second
)

// Pace bounds how often one address may begin something that costs: so many times a
// second, and after a rest ten times as many at once. It is safe for concurrent use.
//
// It holds an address for no longer than what was begun counts, 10 s, so that what
// it holds is bounded by what the machine could do in that time.
type Pace struct {
	every time.Duration // of a second; 0: no bound

	mu    sync.Mutex                 // guards all below
	until map[netip.Prefix]time.Time // when all that was begun is forgotten; in the future, or to be swept
	sweep int                        // at so many entries
}

// minSweep entries are not worth looking through.
const minSweep = 1024

// NewPace makes a pace of perSecond; 0 is no bound.
func NewPace(perSecond int) *Pace {
	p := &Pace{until: make(map[netip.Prefix]time.Time), sweep: minSweep}
	if perSecond > 0 {
		p.every = time.Second / time.Duration(perSecond)
	}
	return p
}

// Begin reports whether origin may begin one more, and counts it if so.
func (p *Pace) Begin(origin netip.Prefix) bool {
	if p.every == 0 {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	until := p.until[origin]
	if until.Before(now) {
		until = now
	}
	if until.Sub(now) > paceBurst-p.every {
		return false
	}
	p.until[origin] = until.Add(p.every)
	if len(p.until) >= p.sweep {
		for origin, until := range p.until {
			if !until.After(now) {
				delete(p.until, origin)
			}
		}
		p.sweep = max(minSweep, 2*len(p.until))
	}
	return true
}

// Forget takes back what [Pace.Begin] counted: it cost little after all.
func (p *Pace) Forget(origin netip.Prefix) {
	if p.every == 0 {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if until, ok := p.until[origin]; ok {
		p.until[origin] = until.Add(-p.every)
	}
}

// Origin is what counts as one address: an IPv4 address, or the /64 that one IPv6
// subscriber has at least (RFC 6177). Zero for none.
func Origin(addr net.Addr) netip.Prefix {
	with, ok := addr.(interface{ AddrPort() netip.AddrPort }) // of TCP or UDP
	if !ok {
		return netip.Prefix{}
	}
	ip := with.AddrPort().Addr().Unmap().WithZone("")
	bits := 32
	if ip.Is6() {
		bits = 64
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
