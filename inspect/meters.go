package inspect

import (
	"sync"

	"github.com/wgexpose/wgexpose/meter"
)

// meters counts the exchanges of each tunnel, by its name.
type meters struct {
	mu     sync.Mutex // guards byName
	byName map[string]*meter.Meter
}

// maxMeters bounds names; a process serves far fewer, over all its reloads.
const maxMeters = 1024

func (m *meters) of(tunnel string) *meter.Meter {
	m.mu.Lock()
	defer m.mu.Unlock()
	found := m.byName[tunnel]
	if found != nil {
		return found
	}
	found = new(meter.Meter)
	if m.byName == nil {
		m.byName = map[string]*meter.Meter{}
	}
	if len(m.byName) < maxMeters {
		m.byName[tunnel] = found
	}
	return found
}
