package harness

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
)

// relay stands between agents and edge as a NAT does: each agent's packets
// leave from a socket of its own, and answers find their way back.
type relay struct {
	t     testing.TB
	front *net.UDPConn // to the agents

	mu    sync.Mutex // guards what follows
	edge  netip.AddrPort
	flows map[netip.AddrPort]*flow // by the agent's address
	held  bool                     // nothing passes
	sleep int                      // agents that sleep: flows that begin now are theirs
	wait  sync.WaitGroup
	over  bool
}

// flow is one agent's way through the relay.
type flow struct {
	agent  netip.AddrPort
	back   *net.UDPConn // to the edge
	paused bool         // guarded by relay.mu
	asleep bool         // guarded by relay.mu: began while an agent slept
}

func newRelay(t testing.TB) *relay {
	t.Helper()
	r := &relay{t: t, front: udp(t), flows: make(map[netip.AddrPort]*flow)}
	r.wait.Go(r.inward)
	t.Cleanup(r.close)
	return r
}

func udp(t testing.TB) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
	if err != nil {
		t.Fatal(err)
	}
	// A burst must not be lost in the relay.
	if err := errors.Join(c.SetReadBuffer(4<<20), c.SetWriteBuffer(4<<20)); err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *relay) addr() netip.AddrPort { return r.front.LocalAddr().(*net.UDPAddr).AddrPort() }

func (r *relay) setEdge(a netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.edge = a
}

func (r *relay) close() {
	r.mu.Lock()
	r.over = true
	r.front.Close()
	for _, f := range r.flows {
		f.back.Close()
	}
	r.mu.Unlock()
	r.wait.Wait()
}

// pause black-holes the flow that the edge sees as coming from back, and those
// of sockets that are new to the relay, until resume: an agent that hears
// nothing opens another one.
func (r *relay) pause(back string) {
	r.t.Helper()
	r.strand(back)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sleep++
}

// resume undoes pause.
func (r *relay) resume(back string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sleep--
	for _, f := range r.flows {
		if f.asleep || f.back.LocalAddr().String() == back {
			f.paused, f.asleep = false, false
		}
	}
}

// remap forgets the mapping of the flow that the edge sees as coming from back:
// the agent's next packet leaves from another port, and what the edge still
// sends to the old one is lost.
func (r *relay) remap(back string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for agent, f := range r.flows {
		if f.back.LocalAddr().String() == back {
			delete(r.flows, agent)
			f.back.Close()
			return
		}
	}
	r.t.Fatalf("no agent comes from %s", back)
}

// strand makes the address that the agent behind back sends from a dead one:
// nothing passes from or to it any more. Only another socket helps.
func (r *relay) strand(back string) {
	r.t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.flows {
		if f.back.LocalAddr().String() == back {
			f.paused = true
			return
		}
	}
	r.t.Fatalf("no agent comes from %s", back)
}

// hold black-holes everything, or lets it pass again.
func (r *relay) hold(held bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.held = held
}

// inward carries what agents send.
func (r *relay) inward() {
	buf := make([]byte, 65536)
	for {
		n, from, err := r.front.ReadFromUDPAddrPort(buf)
		if err != nil {
			return // closed
		}
		f, to := r.flow(from)
		if f == nil {
			continue
		}
		// An edge that is stopped answers with ICMP, which is no error here.
		f.back.WriteToUDPAddrPort(buf[:n], to)
	}
}

// flow is the way of an agent's packet to the edge; nil while there is none.
func (r *relay) flow(agent netip.AddrPort) (*flow, netip.AddrPort) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over || !r.edge.IsValid() {
		return nil, netip.AddrPort{}
	}
	f := r.flows[agent]
	if f == nil {
		back, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(loopback))
		if err != nil {
			r.t.Errorf("relay: %v", err)
			return nil, netip.AddrPort{}
		}
		if err := errors.Join(back.SetReadBuffer(4<<20), back.SetWriteBuffer(4<<20)); err != nil {
			r.t.Errorf("relay: %v", err)
		}
		f = &flow{agent: agent, back: back, paused: r.sleep > 0, asleep: r.sleep > 0}
		r.flows[agent] = f
		r.wait.Go(func() { r.outward(f) })
	}
	if f.paused || r.held {
		return nil, netip.AddrPort{}
	}
	return f, r.edge
}

// outward carries what the edge answers.
func (r *relay) outward(f *flow) {
	buf := make([]byte, 65536)
	for {
		n, _, err := f.back.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		r.mu.Lock()
		pass := err == nil && !f.paused && !r.held
		r.mu.Unlock()
		if pass {
			r.front.WriteToUDPAddrPort(buf[:n], f.agent)
		}
	}
}
