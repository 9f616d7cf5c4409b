package inspect

import (
	"sync"

	"github.com/wgexpose/wgexpose/meter"
)

// meters has a pair of meters for each tunnel name.
type meters struct {
	mu     sync.Mutex // guards byName
	byName map[string]*meterPair
}

type meterPair struct{ conns, http meter.Meter }

// maxMeters bounds names; a process serves far fewer, over all its reloads.
const maxMeters = 1024

func (m *meters) of(tunnel string) *meterPair {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.byName[tunnel]
	if found != nil {
		return found
	}
	found = new(meterPair)
	if m.byName == nil {
		m.byName = map[string]*meterPair{}
	}
	if len(m.byName) < maxMeters {
		m.byName[tunnel] = found
	}
	return found
}
