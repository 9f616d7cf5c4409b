package edge

import (
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/wgexpose/wgexpose/store"
	"github.com/wgexpose/wgexpose/tunnel"
)

// effect is what a change of the store may change in the world.
type effect struct {
	peers bool // who may speak to the edge
	table bool // what it serves
}

// after is the snapshot that follows from s at revision rev, where of all keys only
// those given have changed since; entries are what they have now. s stays as it is.
// What it decodes, and what it does besides copying maps, depends on the change alone.
func (s *snapshot) after(rev store.Revision, changed []string, entries []store.Entry) (*snapshot, effect, error) {
	next := *s
	next.rev = rev
	touched := func(prefix string) bool {
		return slices.ContainsFunc(changed, func(key string) bool { return strings.HasPrefix(key, prefix) })
	}
	if touched(store.NodePrefix) {
		next.nodes, next.byKey = maps.Clone(s.nodes), maps.Clone(s.byKey)
	}
	if touched(store.NamePrefix) {
		next.byName = maps.Clone(s.byName)
	}
	if touched(store.InvitePrefix) {
		next.invites = maps.Clone(s.invites)
	}
	if touched(store.PublicPrefix) {
		next.publics, next.owned = maps.Clone(s.publics), maps.Clone(s.owned)
	}
	for _, key := range changed {
		next.forget(key)
	}
	for _, e := range entries {
		if err := next.add(e); err != nil {
			return nil, effect{}, err
		}
	}
	var changes effect
	for _, key := range changed {
		switch {
		case strings.HasPrefix(key, store.NodePrefix):
			id, ok := nodeOf(key)
			if !ok {
				continue
			}
			was, is := s.nodes[id].Value, next.nodes[id].Value
			changes.peers = changes.peers || was.Kind != is.Kind || was.Key != is.Key
			changes.table = changes.table || was.Kind != is.Kind || was.Name != is.Name
		case strings.HasPrefix(key, store.PublicPrefix):
			changes.table = true
		}
	}
	return &next, changes, nil
}

// forget takes out what stands under key. The maps are s's own, and slices in them
// are not.
func (s *snapshot) forget(key string) {
	switch {
	case key == store.SettingsKey:
		s.settings = store.Item[store.Settings]{}
	case key == servingKey:
		s.serving = store.Item[serving]{}
	case strings.HasPrefix(key, store.NodePrefix):
		if id, ok := nodeOf(key); ok {
			was := s.nodes[id].Value.Key
			delete(s.nodes, id)
			if s.byKey[was] == id {
				delete(s.byKey, was)
			}
		}
	case strings.HasPrefix(key, store.NamePrefix):
		delete(s.byName, strings.TrimPrefix(key, store.NamePrefix))
	case strings.HasPrefix(key, store.InvitePrefix):
		delete(s.invites, strings.TrimPrefix(key, store.InvitePrefix))
	case strings.HasPrefix(key, store.PublicPrefix):
		p, ok := s.publics[key]
		if !ok {
			return
		}
		delete(s.publics, key)
		rest := slices.DeleteFunc(slices.Clone(s.owned[p.Value.Node]), func(k string) bool { return k == key })
		if s.owned[p.Value.Node] = rest; len(rest) == 0 {
			delete(s.owned, p.Value.Node)
		}
	}
}

// nodeOf is the node whose record stands under key.
func nodeOf(key string) (tunnel.NodeID, bool) {
	id, err := strconv.ParseUint(strings.TrimPrefix(key, store.NodePrefix), 10, 32)
	return tunnel.NodeID(id), err == nil
}

// own adds a record to those of a node, which stay sorted. Those of a snapshot
// before this one share no memory with it.
func (s *snapshot) own(node tunnel.NodeID, key string) {
	have := s.owned[node]
	if n := len(have); n == 0 || have[n-1] < key {
		s.owned[node] = append(slices.Clip(have), key)
		return
	}
	i, _ := slices.BinarySearch(have, key)
	s.owned[node] = slices.Insert(slices.Clone(have), i, key)
}
