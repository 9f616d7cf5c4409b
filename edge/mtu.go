package edge

import (
	"fmt"
	"sync"

	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/pathmtu"
	"github.com/wgexpose/wgexpose/tunnel"
)

// sizes are how large the packets to each agent are, in bytes. What the paths
// take is found out for the agents that have a session, and for all others, which
// may know nothing of probes, the default holds.
type sizes struct {
	pinned  int // for all; 0: found out
	overlay tunnel.Overlay
	stack   *netstack.Stack
	prober  *pathmtu.Prober

	mu    sync.Mutex // guards what follows
	paths map[tunnel.NodeID]*pathmtu.Path
}

// openStack opens the netstack and what finds out how large its packets may be.
func openStack(cfg netstack.Config, overlay tunnel.Overlay) (*sizes, error) {
	s := &sizes{pinned: cfg.MTU, overlay: overlay, paths: make(map[tunnel.NodeID]*pathmtu.Path)}
	cfg.Probes = func(packet []byte) { s.prober.Receive(packet) } // there are none yet
	var err error
	if s.stack, err = netstack.Open(cfg); err != nil {
		return nil, err
	}
	s.prober = pathmtu.New(pathmtu.Config{
		Local: cfg.Addr, Default: netstack.DefaultMTU, Send: s.stack.Send, Logger: cfg.Logger,
	})
	return s, nil
}

// begin finds out how large packets to a node may be, until the returned
// function is called. The node's next session may have begun before that. There is
// nothing to find out about streams.
func (s *sizes) begin(node tunnel.NodeID, stream bool) (end func(), err error) {
	if s.pinned != 0 {
		return func() {}, nil
	}
	prefix := s.overlay.NodePrefix(node)
	way, err := s.stack.Path(prefix)
	if err != nil {
		return nil, fmt.Errorf("find out how large packets may be: %w", err)
	}
	path := s.prober.Open(s.overlay.NodeAddr(node), way, knownSize(stream))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[node] = path
	return func() {
		path.Close()
		s.stack.ForgetPath(prefix, way)
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.paths[node] == path {
			delete(s.paths, node)
		}
	}, nil
}

// size is how large packets to a node are now; 0: it has no session.
func (s *sizes) size(node tunnel.NodeID) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := s.paths[node]
	if path == nil {
		return 0
	}
	return path.Size()
}

func knownSize(stream bool) int {
	if stream {
		return pathmtu.Stream
	}
	return 0
}

// moved notes how packets get to a node. Most agents tell it themselves, by probes,
// when they go from a stream to UDP.
func (s *sizes) moved(node tunnel.NodeID, stream bool) {
	s.mu.Lock()
	path := s.paths[node]
	s.mu.Unlock()
	if path != nil && path.Known() != stream {
		path.Restart(knownSize(stream))
	}
}

// mtu is how large packets to an agent are now, 0 while that is not known.
func (r *running) mtu(id tunnel.NodeID) int {
	if up, _ := r.sessions.state(id); !up {
		return 0
	}
	if r.sizes.pinned != 0 {
		return r.sizes.pinned
	}
	return r.sizes.size(id)
}
