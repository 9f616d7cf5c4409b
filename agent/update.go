package agent

import (
	"slices"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/tunnel"
)

// offer is a tunnel as a process hands it to the owner. The number is what both
// call it by; the process gives it to this tunnel alone.
type offer struct {
	Number int `json:"number"`
	Tunnel
}

// SameWay reports whether connections go on when b takes the place of a tunnel a of
// the same name (see Config.Updates): nothing has changed but what edges are told, or
// what the inspector does.
func SameWay(a, b Tunnel) bool {
	for _, t := range []*Tunnel{&a, &b} {
		t.ID, t.Policy, t.Uninspected = 0, nil, false
		if !t.EndsTLSAtAgent() { // else host header and compression are this agent's work
			t.Host, t.Port, t.HostHeader, t.Compression = "", 0, "", false
		}
	}
	return a == b
}

// own is one of the tunnels of a Run.
type own struct {
	offer
	last    Event // as last told
	refused bool  // for good
	served  bool  // it has been up
}

// roster is what a Run wants now. It changes while the Run goes on, and the owner
// is told, whoever that is by then.
type roster struct {
	mu      sync.Mutex // guards all below
	tunnels []*own
	leaving map[int]*own // removed by the user, until their end is told
	next    int          // number of the next tunnel
	version int          // moves with each change

	handing sync.Mutex    // one at a time tells the owner; guards what follows
	push    func([]offer) // to the owner; nil: there is none
	told    int           // the version that it has been told
}

// want has the tunnels take the place of those that are there. A tunnel keeps its
// number, and with it its connections, when it has the same name and goes the same
// way. removed are those whose end nobody else can tell.
func (r *roster) want(tunnels []Tunnel) (removed []*own) {
	r.handing.Lock()
	defer r.handing.Unlock()
	r.mu.Lock()
	before := slices.Clone(r.tunnels)
	r.tunnels = make([]*own, 0, len(tunnels))
	for _, t := range tunnels {
		i := slices.IndexFunc(before, func(o *own) bool {
			if t.Name == "" || o.Name == "" {
				return t.Name == o.Name && SameWay(t, o.Tunnel) && t.Host == o.Host && t.Port == o.Port
			}
			return t.Name == o.Name
		})
		o := &own{}
		if i >= 0 {
			o = before[i]
			before = slices.Delete(before, i, i+1)
		}
		if i < 0 || !SameWay(t, o.Tunnel) {
			r.next++
			o = &own{offer: offer{Number: r.next}, last: o.last}
			if o.ID = t.ID; o.ID == 0 {
				o.ID = freeID(nil)
			}
		}
		for number, l := range r.leaving { // is back before its end was told
			if t.Name != "" && l.Name == t.Name {
				delete(r.leaving, number)
			}
		}
		t.ID = o.ID
		o.Tunnel = t
		r.tunnels = append(r.tunnels, o)
	}
	for _, o := range before {
		if r.push == nil {
			removed = append(removed, o)
		} else {
			r.leaving[o.Number] = o
		}
	}
	r.version++
	r.mu.Unlock()
	r.handLocked()
	return removed
}

// offers are the tunnels as they are handed to an owner, and their version.
func (r *roster) offers() ([]offer, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]offer, len(r.tunnels))
	for i, o := range r.tunnels {
		all[i] = o.offer
	}
	return all, r.version
}

// attach names the owner that was handed a version of the tunnels. It is told of
// later ones through push, until detach.
func (r *roster) attach(version int, push func([]offer)) {
	r.handing.Lock()
	defer r.handing.Unlock()
	r.push, r.told = push, version
	r.handLocked()
}

// detach says that there is no owner. It returns the tunnels whose end nobody
// will tell now.
func (r *roster) detach() (removed []*own) {
	r.handing.Lock()
	defer r.handing.Unlock()
	r.push = nil
	r.mu.Lock()
	defer r.mu.Unlock()
	for number, o := range r.leaving {
		removed = append(removed, o)
		delete(r.leaving, number)
	}
	return removed
}

// handLocked tells the owner what has changed. It is called with r.handing held.
func (r *roster) handLocked() {
	if r.push == nil {
		return
	}
	if offers, version := r.offers(); version != r.told {
		r.told = version
		r.push(offers)
	}
}

// find is the tunnel with that number; nil for one that another has replaced.
func (r *roster) find(number int) *own {
	for _, o := range r.tunnels {
		if o.Number == number {
			return o
		}
	}
	return r.leaving[number]
}

// goneEvent is the end of a tunnel, in words that nobody else has found.
func (o *own) goneEvent() Event {
	name := o.Name
	if o.last.Name != "" {
		name = o.last.Name
	}
	return Event{Time: time.Now().UTC(), Event: EventTunnel, Name: name, Kind: o.Kind, State: TunnelGone, Upstream: o.Upstream}
}

// prepare makes tunnels ready to be wanted.
func (r *runner) prepare(tunnels []Tunnel) []Tunnel {
	out := slices.Clone(tunnels)
	for i := range out {
		t := &out[i]
		t.Uninspected = t.Uninspected || r.cfg.Inspect.Addr == ""
		if t.Via == "" {
			if u, err := tunnel.ParseUpstream(t.Kind, t.Upstream); err == nil { // else Validate has refused it
				t.Upstream = u.String()
			}
		}
	}
	return out
}

// takeUpdates takes new sets of tunnels from the user until the Run ends.
func (r *runner) takeUpdates(done <-chan struct{}) {
	for {
		select {
		case tunnels, open := <-r.cfg.Updates:
			if !open {
				return
			}
			if err := CheckTunnels(tunnels); err != nil {
				r.log.Error("new tunnels cannot be used; nothing was changed", "err", err)
				continue
			}
			r.lost(r.roster.want(r.prepare(tunnels)))
		case <-done:
			return
		}
	}
}

// lost tells the end of tunnels of which no owner will.
func (r *runner) lost(removed []*own) {
	for _, o := range removed {
		if r.begun.Load() && o.last.State != TunnelGone {
			r.tell(o.goneEvent())
		}
	}
}
