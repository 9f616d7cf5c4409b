package agent

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/pathmtu"
)

// sizing is how large the packets of a link are, for whoever asks.
type sizing struct {
	pinned atomic.Int64 // see Reach.MTU
	path   atomic.Pointer[pathmtu.Path]
}

// begin finds out how large packets to the edge at addr may be, until the
// returned function is called. There is nothing to find out about a size that
// is pinned, nor about streams.
func (s *sizing) begin(n *node, addr netip.Addr) (end func(), err error) {
	if s.pinned.Store(int64(n.pinned)); n.pinned != 0 {
		return func() {}, nil
	}
	everywhere := netip.PrefixFrom(netip.IPv6Unspecified(), 0) // the edge is the only peer
	way, err := n.stack.Path(everywhere)
	if err != nil {
		return nil, fmt.Errorf("find out how large packets may be: %w", err)
	}
	known := 0
	if n.stream != nil {
		known = pathmtu.Stream
	}
	path := n.prober.Open(addr, way, known)
	s.path.Store(path)
	return func() {
		s.path.Store(nil)
		path.Close()
		n.stack.ForgetPath(everywhere, way)
	}, nil
}

// moved begins anew, when packets go over UDP from now on.
func (s *sizing) moved() {
	if path := s.path.Load(); path != nil {
		path.Restart(0)
	}
}

// size is how large packets are now, in bytes.
func (s *sizing) size() int {
	if n := s.pinned.Load(); n != 0 {
		return int(n)
	}
	if path := s.path.Load(); path != nil {
		return path.Size()
	}
	return netstack.DefaultMTU
}
