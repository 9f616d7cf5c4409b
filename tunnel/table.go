package tunnel

import (
	"fmt"
	"iter"
	"net/netip"
	"slices"
)

// State says whether a tunnel's agent is there.
type State string

const (
	Up   State = "up"
	Away State = "away"
)

// Entry is one published tunnel. Host, of an HTTP tunnel, and Port, of a TCP
// tunnel, are those that it got.
type Entry struct {
	Spec
	Node      NodeID         `json:"node"`
	Agent     string         `json:"agent"`
	Addr      netip.AddrPort `json:"addr"` // where the edge dials it in the overlay
	PublicURL string         `json:"public_url"`
	State     State          `json:"state,omitempty"`
}

// Table finds tunnels by their public side. It is immutable, so that all of a
// request is answered from one.
type Table struct {
	entries []Entry
	hosts   map[string]*Entry
	ports   map[uint16]*Entry
}

// NewTable makes a table of entries, which it copies. Two entries with one
// host, port or overlay address are an error.
func NewTable(entries []Entry) (*Table, error) {
	t := &Table{
		entries: slices.Clone(entries),
		hosts:   make(map[string]*Entry, len(entries)),
		ports:   make(map[uint16]*Entry),
	}
	addrs := make(map[netip.AddrPort]bool, len(entries))
	for i := range t.entries {
		e := &t.entries[i]
		if addrs[e.Addr] {
			return nil, fmt.Errorf("tunnel table: two tunnels at %v", e.Addr)
		}
		addrs[e.Addr] = true
		switch e.Kind {
		case HTTP:
			if e.Host == "" || t.hosts[e.Host] != nil {
				return nil, fmt.Errorf("tunnel table: host %q is missing or there twice", e.Host)
			}
			t.hosts[e.Host] = e
		case TCP:
			if e.Port == 0 || t.ports[e.Port] != nil {
				return nil, fmt.Errorf("tunnel table: port %d is missing or there twice", e.Port)
			}
			t.ports[e.Port] = e
		default:
			return nil, fmt.Errorf("tunnel table: %w", e.Kind.Validate())
		}
	}
	return t, nil
}

// ByHost finds an HTTP tunnel. The host may be as a visitor sent it, without
// its port.
func (t *Table) ByHost(host string) (*Entry, bool) {
	if e, ok := t.hosts[host]; ok {
		return e, true
	}
	canonical, err := CanonicalHost(host)
	if err != nil {
		return nil, false
	}
	e, ok := t.hosts[canonical]
	return e, ok
}

// ByPort finds a TCP tunnel.
func (t *Table) ByPort(port uint16) (*Entry, bool) {
	e, ok := t.ports[port]
	return e, ok
}

// Len is the number of tunnels.
func (t *Table) Len() int { return len(t.entries) }

// All yields every tunnel, in the order that NewTable got them.
func (t *Table) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		for i := range t.entries {
			if !yield(&t.entries[i]) {
				return
			}
		}
	}
}
