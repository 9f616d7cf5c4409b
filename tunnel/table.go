package tunnel

import (
	"fmt"
	"iter"
)

// A Table is the set of tunnels that an edge serves at one time. It never
// changes, nor do the entries that it gives out: readers need no lock. A nil
// Table is empty.
type Table struct {
	entries []Entry
	byHost  map[string]*Entry
	byPort  map[uint16]*Entry
}

// NewTable makes a table of a copy of the entries. It refuses a host, a port or
// a node's tunnel id that appears twice, an http or tls entry whose host is not
// canonical, and a tcp entry without a port: no visitor could be told apart, or
// find it.
func NewTable(entries []Entry) (*Table, error) {
	type tunnel struct {
		node NodeID
		id   ID
	}
	t := &Table{
		entries: append([]Entry(nil), entries...),
		byHost:  make(map[string]*Entry, len(entries)),
		byPort:  make(map[uint16]*Entry),
	}
	ids := make(map[tunnel]bool, len(entries))
	for i := range t.entries {
		e := &t.entries[i]
		if id := (tunnel{e.Node, e.ID}); ids[id] {
			return nil, fmt.Errorf("tunnel %d of node %d appears twice", e.ID, e.Node)
		} else {
			ids[id] = true
		}
		switch e.Kind {
		case HTTP, TLS:
			canonical, err := CanonicalHost(e.Host)
			if err != nil {
				return nil, fmt.Errorf("tunnel %d of node %d: %w", e.ID, e.Node, err)
			}
			if canonical != e.Host {
				return nil, fmt.Errorf("tunnel %d of node %d: the host %q is not canonical, %q is", e.ID, e.Node, e.Host, canonical)
			}
			if other := t.byHost[e.Host]; other != nil {
				return nil, fmt.Errorf("host %s has two tunnels, of nodes %d and %d", e.Host, other.Node, e.Node)
			}
			t.byHost[e.Host] = e
		case TCP:
			if e.Port == 0 {
				return nil, fmt.Errorf("tunnel %d of node %d has no port", e.ID, e.Node)
			}
			if other := t.byPort[e.Port]; other != nil {
				return nil, fmt.Errorf("port %d has two tunnels, of nodes %d and %d", e.Port, other.Node, e.Node)
			}
			t.byPort[e.Port] = e
		default:
			return nil, fmt.Errorf("tunnel %d of node %d: %w", e.ID, e.Node, e.Kind.Validate())
		}
	}
	return t, nil
}

// ByHost finds an http or tls tunnel by a host name in any case, with or without a
// trailing dot, but without a port. The entry must not be changed.
func (t *Table) ByHost(host string) (*Entry, bool) {
	if t == nil {
		return nil, false
	}
	if e, ok := t.byHost[host]; ok { // as nearly every client sends it
		return e, true
	}
	canonical, err := CanonicalHost(host)
	if err != nil {
		return nil, false
	}
	e, ok := t.byHost[canonical]
	return e, ok
}

// ByPort finds a tcp tunnel by its public port. The entry must not be changed.
func (t *Table) ByPort(port uint16) (*Entry, bool) {
	if t == nil {
		return nil, false
	}
	e, ok := t.byPort[port]
	return e, ok
}

// All gives every entry, in the order in which NewTable got them. They must not
// be changed.
func (t *Table) All() iter.Seq[*Entry] {
	return func(yield func(*Entry) bool) {
		if t == nil {
			return
		}
		for i := range t.entries {
			if !yield(&t.entries[i]) {
				return
			}
		}
	}
}

// Len is the number of entries.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	return len(t.entries)
}
