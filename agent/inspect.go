package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/wgexpose/wgexpose/inspect"
	"github.com/wgexpose/wgexpose/tunnel"
)

// Inspect says whether a process has the requests of its http tunnels shown.
type Inspect struct {
	Addr   string `json:"addr,omitempty"`   // HOST:PORT of the page and the API; when the port is taken one of the next nine; "": nothing is read along
	Unmask bool   `json:"unmask,omitempty"` // show the values of headers that carry secrets
}

// Validate says what makes an Inspect unusable.
func (i Inspect) Validate() error {
	if i.Addr == "" {
		return nil
	}
	if _, _, err := net.SplitHostPort(i.Addr); err != nil {
		return fmt.Errorf("agent: the inspector's address: %w", err)
	}
	return nil
}

// inspection is the one inspector of an owner, for all processes that it serves.
// It begins with the first of them that wants one, as that one wants it: until
// then nothing is read along, and nobody listens.
type inspection struct {
	version string
	status  func() Status
	log     *slog.Logger

	running atomic.Pointer[inspect.Inspector] // nil: none

	mu    sync.Mutex // guards all below
	ended bool
	url   string // of the page
	clear bool   // secrets are shown
	stop  context.CancelFunc
	serve sync.WaitGroup
}

// begin opens the inspector unless it is there already. told is called with its
// event once, when that has changed.
func (i *inspection) begin(want Inspect, told func(Event)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if want.Addr == "" || i.ended || i.running.Load() != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	l, err := inspect.Listen(ctx, want.Addr)
	if err != nil {
		cancel()
		told(Event{Time: time.Now().UTC(), Event: EventInspector, State: InspectorError, Reason: err.Error()})
		return
	}
	host, _, err := net.SplitHostPort(want.Addr)
	if err != nil || host == "" { // the first cannot be: Listen has taken it apart before
		host = netip.IPv6Unspecified().String()
	}
	in := inspect.New(inspect.Config{Unmask: want.Unmask, Hosts: []string{host}, Version: i.version, Logger: i.log})
	i.url, i.stop, i.clear = pageURL(l.Addr()), cancel, want.Unmask
	i.running.Store(in)
	i.serve.Go(func() {
		if err := in.Serve(ctx, l, func() inspect.Status { return inspectStatus(i.status()) }); err != nil {
			i.log.Warn("the inspector's page is not served any more", "err", err)
		}
	})
	told(Event{Time: time.Now().UTC(), Event: EventInspector, State: InspectorUp, URL: i.url})
}

// pageURL is where a browser on this machine finds the listener.
func pageURL(a net.Addr) string {
	ap, err := netip.ParseAddrPort(a.String())
	if err != nil {
		return "http://" + a.String()
	}
	switch addr := ap.Addr().Unmap(); {
	case addr.IsUnspecified() && addr.Is4():
		ap = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), ap.Port())
	case addr.IsUnspecified():
		ap = netip.AddrPortFrom(netip.IPv6Loopback(), ap.Port())
	}
	return "http://" + ap.String()
}

// address is where the page is, or "".
func (i *inspection) address() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.url
}

// unmasks reports whether the page shows secrets.
func (i *inspection) unmasks() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.clear
}

// end releases everything. Tapped connections must have ended, or go on unread.
func (i *inspection) end() {
	i.mu.Lock()
	i.ended, i.url = true, ""
	in, stop := i.running.Load(), i.stop
	i.mu.Unlock() // the page may just ask for the status, and address
	if in == nil {
		return
	}
	stop()
	i.serve.Wait()
	if err := in.Close(); err != nil {
		i.log.Warn("close the inspector", "err", err)
	}
}

// tap has a connection to the upstream read along, where that speaks HTTP and it is
// wanted. The visitor is zero on a connection that visitors share.
func (t *served) tap(up net.Conn, visitor netip.AddrPort) net.Conn {
	if t.Kind != tunnel.HTTP {
		return up
	}
	in := t.set.inspection.running.Load()
	if in == nil {
		return up
	}
	meta, shown := t.set.meta(t)
	if !shown {
		return up
	}
	if visitor.IsValid() {
		meta.Visitor = visitor.String()
	}
	return in.Tap(up, meta, func(ctx context.Context) (net.Conn, error) {
		if t.dial.Err() != nil {
			return nil, fmt.Errorf("the tunnel %s leads there no more", meta.Tunnel)
		}
		again, failure := dialUpstream(ctx, t.upstream, t.protocol(), t.InsecureUpstreamTLS)
		if failure != nil { // a nil *control.Error would not be a nil error
			return nil, failure
		}
		return again, nil
	})
}

// meta is what the inspector shows of a tunnel, and whether it shows it.
func (s *set) meta(t *served) (m inspect.Meta, shown bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return inspect.Meta{Tunnel: t.named, PublicURL: t.last.PublicURL, Upstream: t.Spec.Upstream}, !t.wanted.Uninspected
}

// inspectStatus is a status in the inspector's words.
func inspectStatus(s Status) inspect.Status {
	out := inspect.Status{State: "connecting", Agent: s.Agent}
	for _, l := range s.Links {
		switch l.State {
		case LinkUp:
			out.State = "online"
		case LinkDown, LinkDegraded:
			if out.State == "connecting" {
				out.State = "offline"
			}
		}
		out.Links = append(out.Links, inspect.LinkStatus{Edge: l.Edge, State: l.State, Transport: l.Transport, Latency: l.Latency, Since: l.Since, Detail: l.Reason})
	}
	for _, t := range s.Tunnels {
		row := inspect.TunnelStatus{
			Name: t.Name, PublicURL: t.PublicURL, Kind: string(t.Kind), Upstream: t.Upstream, State: t.State, Inspected: t.Inspected, Conns: t.Conns,
		}
		if t.Error != nil {
			row.Detail = t.Error.Message
		}
		out.Tunnels = append(out.Tunnels, row)
	}
	return out
}
