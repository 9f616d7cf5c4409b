package agent

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/pathmtu"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
	"github.com/wgexpose/wgexpose/wg"
)

// datagrams looks at UDP, or at what the command that runs knows of it.
func (d *diagnosis) datagrams(ctx context.Context) {
	lock, err := d.dir.Lock(lockFile)
	if errors.Is(err, statedir.ErrLocked) {
		d.running(ctx)
		return
	}
	if err != nil {
		d.bad(CheckSkip, "udp", "", err.Error(), "")
		return
	}
	defer lock.Unlock()
	for _, edge := range d.joined.Edges {
		d.ports(ctx, edge)
	}
}

// running tells the state of the links of the command that holds the key.
func (d *diagnosis) running(ctx context.Context) {
	asking, cancel := context.WithTimeout(ctx, d.o.wait)
	defer cancel()
	st, err := ReadStatus(asking, d.dir)
	if err != nil {
		d.bad(CheckFail, "agent", "", err.Error(), "end that command, and start it again")
		return
	}
	for _, l := range st.Links {
		if l.State != LinkUp {
			d.bad(CheckFail, "agent", l.Edge, strings.TrimSuffix("the link is "+l.State+": "+l.Reason, ": "), "what is wrong is above, or: stop the command that runs, and diagnose again, to have UDP looked at port by port")
			continue
		}
		d.ok("agent", l.Edge, "the link is up over %s, %.0f ms there and back, with packets of %d bytes", l.Transport, l.Latency, l.MTU)
	}
	d.bad(CheckSkip, "udp", "", fmt.Sprintf("a command (process %d) uses the agent's key, which works in one place at a time", st.PID), "stop it and diagnose again, if UDP is what does not work")
}

// mapped is how the edge sees a socket of this machine.
type mapped struct{ inside, outside netip.AddrPort }

// ports looks at each UDP address of an edge by itself.
func (d *diagnosis) ports(ctx context.Context, edge keys.Edge) {
	how := d.o.Reach
	how.Transport = TransportUDP
	n, err := openNode(d.key, d.joined.Overlay.NodeAddr(d.joined.Node), how, d.o.Logger)
	if err != nil {
		d.bad(CheckFail, "udp", "", err.Error(), "check that this user may open UDP sockets")
		return
	}
	defer n.close()
	n.resolver = d.o.resolver
	var maps []mapped
	sized := false
	for _, ep := range edge.Endpoints {
		if ep.Kind != keys.EndpointUDP {
			continue
		}
		one := keys.Edge{Key: edge.Key, Node: edge.Node, Endpoints: []keys.Endpoint{ep}}
		if err := n.reach(ctx, one, d.o.wait); err != nil {
			d.bad(CheckFail, "udp", ep.Addr, err.Error(), "on the edge, check that wgexpose edge runs and that the firewalls in front of it let this UDP port in, and with wgexpose edge agents that this agent was not revoked; if other ports or TLS are ok, agents use those by themselves")
			continue
		}
		begun := time.Now()
		from, err := d.hello(ctx, n, edge)
		if err != nil {
			d.bad(CheckFail, "udp", ep.Addr, "packets get there and back, but the edge's control API does not answer: "+err.Error(), "look into the edge's log")
			continue
		}
		d.ok("udp", ep.Addr, "packets get there and back; the edge's control API answered in %v", time.Since(begun).Round(time.Millisecond))
		if m, err := netip.ParseAddrPort(from); err == nil {
			if p, ok, err := n.dev.Peer(edge.Key); err == nil && ok {
				maps = append(maps, mapped{netip.AddrPortFrom(sourceFor(p.Endpoint), n.dev.Port()), m})
			}
		}
		if !sized {
			sized = true
			d.size(ctx, n, edge, ep.Addr)
		}
	}
	d.nat(maps)
}

// hello asks the edge how it sees this agent.
func (d *diagnosis) hello(ctx context.Context, n *node, edge keys.Edge) (from string, err error) {
	ctx, cancel := context.WithTimeout(ctx, d.o.wait)
	defer cancel()
	to := netip.AddrPortFrom(d.joined.Overlay.NodeAddr(tunnel.NodeID(edge.Node)), tunnel.ControlPort)
	client := control.NewClient(func(ctx context.Context) (net.Conn, error) {
		return n.stack.DialTCP(ctx, netip.AddrPort{}, to)
	})
	defer client.Close()
	stream, err := client.EventsOf(ctx, control.Presence{})
	if err != nil {
		return "", err
	}
	defer stream.Close()
	e, err := stream.Recv()
	return e.From, err
}

// size finds out how large packets may be.
func (d *diagnosis) size(ctx context.Context, n *node, edge keys.Edge, addr string) {
	var s sizing
	end, err := s.begin(n, d.joined.Overlay.NodeAddr(tunnel.NodeID(edge.Node)))
	if err != nil {
		d.bad(CheckSkip, "mtu", addr, err.Error(), "")
		return
	}
	defer end()
	path := s.path.Load()
	if path == nil {
		d.ok("mtu", addr, "packets of %d bytes, as --mtu says", s.size())
		return
	}
	late := time.NewTimer(diagnoseMTU)
	defer late.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	for !path.Found() {
		select {
		case <-look.C:
			continue
		case <-late.C:
			d.bad(CheckSkip, "mtu", addr, "the edge answers no probes of the size of packets; it may be of an older version", "")
			return
		case <-ctx.Done():
			return
		}
	}
	switch size := path.Size(); {
	case size <= pathmtu.Base:
		d.bad(CheckWarn, "mtu", addr, fmt.Sprintf("only small packets get through (%d bytes inside WireGuard), and nothing on the way says so", size), "nothing; packets are made to fit. Another VPN below this one is the usual cause")
	case size < netstack.DefaultMTU:
		d.bad(CheckWarn, "mtu", addr, fmt.Sprintf("packets of up to %d bytes inside WireGuard get through, of %d on most networks", size, netstack.DefaultMTU), "nothing; packets are made to fit")
	default:
		d.ok("mtu", addr, "packets of %d bytes inside WireGuard get through", size)
	}
}

// nat tells what is known of address translation on the way.
func (d *diagnosis) nat(maps []mapped) {
	if len(maps) == 0 {
		d.bad(CheckSkip, "nat", "", "without UDP, nothing can be told of address translation", "")
		return
	}
	first := maps[0]
	if first.inside == first.outside {
		d.ok("nat", "", "none: the edge sees this machine's own address %v", first.outside)
		return
	}
	found := fmt.Sprintf("the edge sees %v, which is %v here", first.outside, first.inside)
	switch {
	case len(maps) == 1:
		d.ok("nat", "", "%s; the edge has one UDP port, which is too little to tell the kind", found)
	case slices.ContainsFunc(maps, func(m mapped) bool { return m.outside != first.outside }):
		d.ok("nat", "", "%s; another mapping for each port of the edge (symmetric)", found)
	default:
		d.ok("nat", "", "%s; one mapping for all ports of the edge", found)
	}
}

// buffers looks at what the system gives to UDP sockets.
func (d *diagnosis) buffers() {
	switch got, wanted, err := wg.Buffers(); {
	case err != nil:
		d.bad(CheckFail, "buffers", "", err.Error(), "check that this user may open UDP sockets")
	case got == 0:
		d.bad(CheckSkip, "buffers", "", "this system does not tell how large the buffers of UDP sockets are", "")
	case got < wanted:
		d.bad(CheckWarn, "buffers", "", fmt.Sprintf("UDP sockets may hold %d KiB, of %d KiB for fast links", got>>10, wanted>>10),
			fmt.Sprintf("sysctl -w net.core.rmem_max=%d net.core.wmem_max=%d", wanted, wanted))
	default:
		d.ok("buffers", "", "UDP sockets may hold %d KiB", got>>10)
	}
}
