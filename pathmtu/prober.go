package pathmtu

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"sync"
	"time"
)

// Config is what a Prober needs. All but Logger are required.
type Config struct {
	// Local is the node's own address in the overlay.
	Local netip.Addr
	// Default is the size, in bytes, that packets have while nothing is known of
	// their path. It is also the MTU that WireGuard pads by.
	Default int
	// Send sends a packet, which it may not keep. Those that are a [Prober.Probe]
	// must leave in one piece or not at all. It must not block.
	Send func(packet []byte) error
	// Logger gets what no caller can be told. nil discards.
	Logger *slog.Logger
}

// Prober is one node's part in finding out how large packets may be: it answers
// the probes of others, and sends its own on the paths that it was given. Its
// methods may be called from any goroutine, and do not block.
type Prober struct {
	cfg   Config
	mu    sync.RWMutex // guards paths
	paths map[netip.Addr]*Path
}

// New makes a Prober without any path.
func New(cfg Config) *Prober {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Prober{cfg: cfg, paths: make(map[netip.Addr]*Path)}
}

// Way is what packets of a path go through; netstack.Path is one.
type Way interface {
	// SetSize has packets of up to n bytes sent from now on; 0: nothing is known.
	SetSize(n int)
	// Watch has f called, once, when the next packet of more than n bytes is on
	// its way. Another call replaces the first; a nil f ends the wait.
	Watch(n int, f func())
	// OnTimeout has f called whenever a connection sends something again because
	// nothing was heard, before it is cut to size; a nil f ends that.
	OnTimeout(f func())
}

// Path is one way to another node. It has no goroutine but its timer.
type Path struct {
	prober *Prober
	remote netip.Addr
	way    Way

	mu     sync.Mutex // guards what follows
	search *search
	shown  int // the size that way was told
	timer  *time.Timer
	closed bool
}

// Open makes the path to a node's address, in place of one that was there for it,
// and begins as [Path.Restart] does. The caller must close it.
func (p *Prober) Open(remote netip.Addr, way Way, known int) *Path {
	path := &Path{prober: p, remote: remote, way: way, search: newSearch(p.cfg.Default, draw)}
	p.mu.Lock()
	p.paths[remote] = path
	p.mu.Unlock()
	way.OnTimeout(path.lost)
	path.Restart(known)
	return path
}

// draw makes a token. WireGuard has authenticated who answers, so it only has to
// tell one probe from another.
func draw() uint64 { return max(rand.Uint64(), 1) }

// Close ends the asking. What way was told last stays.
func (path *Path) Close() {
	p := path.prober
	p.mu.Lock()
	if p.paths[path.remote] == path {
		delete(p.paths, path.remote)
	}
	p.mu.Unlock()
	path.mu.Lock()
	defer path.mu.Unlock()
	path.closed = true
	path.way.Watch(0, nil)
	path.way.OnTimeout(nil)
	if path.timer != nil {
		path.timer.Stop()
	}
}

// Restart begins anew: packets go another way now. known is a size, such as
// [Stream], that is right without any question, as long as the other end does not
// ask; 0: it is to be found out, and begins with the default.
func (path *Path) Restart(known int) {
	path.do(func(s *search, now time.Time) {
		if known != 0 {
			s.know(known)
		} else {
			s.start(now)
		}
	})
}

// Known reports whether the size is one that Restart was given.
func (path *Path) Known() bool {
	path.mu.Lock()
	defer path.mu.Unlock()
	return path.search.known
}

// Size is how large packets are at the moment, in bytes.
func (path *Path) Size() int {
	path.mu.Lock()
	defer path.mu.Unlock()
	return path.search.used()
}

// Found reports whether the other end answers, and no size is in question now.
func (path *Path) Found() bool {
	path.mu.Lock()
	defer path.mu.Unlock()
	return path.search.spoken && path.search.test.size == 0
}

// do lets something happen, and does what follows from it.
func (path *Path) do(event func(*search, time.Time)) {
	path.mu.Lock()
	defer path.mu.Unlock()
	if path.closed {
		return
	}
	s := path.search
	before := s.size
	event(s, time.Now())
	if s.size != before {
		path.tell(before, s.size)
	}
	if size := s.allowed(); size != path.shown {
		path.shown = size
		path.way.SetSize(size)
	}
	for _, probe := range s.out {
		m := message{from: path.prober.cfg.Local, to: path.remote, token: probe.token, size: probe.size}
		if err := path.prober.cfg.Send(m.bytes()); err != nil {
			path.prober.cfg.Logger.Debug("ask how large packets may be", "to", path.remote, "err", err)
		}
	}
	s.out = s.out[:0]
	switch {
	case s.wake.IsZero():
		if path.timer != nil {
			path.timer.Stop()
		}
	case path.timer == nil:
		path.timer = time.AfterFunc(time.Until(s.wake), path.tick)
	default:
		path.timer.Reset(time.Until(s.wake))
	}
	if s.watching() {
		full := s.used()
		if s.doubt {
			full = Base
		}
		path.way.Watch(min(full, Base+1)-1, path.active) // of packets of the base size, full ones
	}
}

func (path *Path) tell(before, now int) {
	log := path.prober.cfg.Logger
	if now != 0 && now < before {
		log.Info("large packets no longer get through; smaller ones are sent", "to", path.remote, "before", before, "now", now)
		return
	}
	log.Debug("size of packets", "to", path.remote, "before", before, "now", now)
}

func (path *Path) tick()   { path.do((*search).tick) }
func (path *Path) active() { path.do((*search).active) }
func (path *Path) lost()   { path.do((*search).lost) }

// Receive takes a packet that came from the overlay and is a probe or an answer.
// Others are ignored. The packet is not kept.
func (p *Prober) Receive(packet []byte) {
	m, err := parse(packet)
	if err == nil && m.to != p.cfg.Local {
		err = fmt.Errorf("it is for %v", m.to)
	}
	if err != nil {
		p.cfg.Logger.Debug("a probe is ignored", "err", err)
		return
	}
	path := p.path(m.from)
	switch {
	case !m.answer:
		answer := message{from: p.cfg.Local, to: m.from, answer: true, token: m.token, size: m.size}
		if err := p.cfg.Send(answer.bytes()); err != nil {
			p.cfg.Logger.Debug("answer a probe", "to", m.from, "err", err)
		}
		if path != nil {
			path.do((*search).asked)
		}
	case path != nil:
		path.do(func(s *search, now time.Time) { s.answered(m.token, now) })
	}
}

func (p *Prober) path(remote netip.Addr) *Path {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.paths[remote]
}

// Probe reports whether a packet that is being sent is a probe, which must reach
// the other end in one piece or not at all, and which node it is for.
func (p *Prober) Probe(packet []byte) (to netip.Addr, ok bool) {
	if !isProbe(packet) {
		return netip.Addr{}, false
	}
	return netip.AddrFrom16([16]byte(packet[24:40])), true
}

// Refused says that the system does not send packets of size bytes in one piece
// to a node.
func (p *Prober) Refused(to netip.Addr, size int) {
	if path := p.path(to); path != nil {
		path.do(func(s *search, now time.Time) { s.refused(size, now) })
	}
}

// Suspect says that the system has refused to send packets of size bytes to some
// node. All paths that are as large and in use are asked anew.
func (p *Prober) Suspect(size int) {
	p.mu.RLock()
	var all []*Path
	for _, path := range p.paths {
		all = append(all, path)
	}
	p.mu.RUnlock()
	for _, path := range all {
		path.do(func(s *search, now time.Time) {
			if s.used() >= size && now.Sub(s.confirmed) < 2*confirmEvery {
				s.suspect(now)
			}
		})
	}
}
