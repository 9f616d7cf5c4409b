package agent

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/tunnel"
)

// TestGuestWithOtherCertificates: a guest whose certificates are to come from
// somewhere else than the owner's is told so, and not served with those.
func TestGuestWithOtherCertificates(t *testing.T) {
	e := newFakeEdge(t)
	dir, j := joined(t, e)
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("a", "8089")}})
	a.tunnel(0, "a", TunnelUp)
	private := httpTunnel("b", "8089")
	private.TerminateAt = tunnel.AtAgent
	internal := Certificates{Mode: certs.Internal}
	b := start(t, Config{Dir: dir, Tunnels: []Tunnel{private}, Certificates: internal})
	if err := b.wait(); err == nil || !strings.Contains(err.Error(), "gets certificates in another way") {
		t.Errorf("guest: %v", err)
	}
	// Where the edge ends TLS it does not matter; a tunnel that is added later is held
	// to the same, and the others go on.
	updates := make(chan []Tunnel)
	c := start(t, Config{Dir: dir, Keep: true, Tunnels: []Tunnel{httpTunnel("c", "8089")}, Updates: updates, Certificates: internal})
	c.tunnel(0, "c", TunnelUp)
	updates <- []Tunnel{httpTunnel("c", "8089"), private}
	refused, _ := c.tunnel(0, "b", TunnelError)
	if refused.Error == nil || !strings.Contains(refused.Error.Message, "gets certificates in another way") {
		t.Errorf("added by an update: %+v", refused)
	}
	e.published(j.Node, "a", "c")
	select {
	case <-c.done:
		t.Errorf("the guest ended: %v", c.err)
	default:
	}
}

// TestGuestWithOtherReach: a guest is told which of its settings have no effect,
// unless they are the owner's, too, or nothing was asked for.
func TestGuestWithOtherReach(t *testing.T) {
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	a := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel("a", "8089")}, Reach: Reach{Transport: TransportUDP}})
	a.tunnel(0, "a", TunnelUp)
	for i, c := range []struct {
		reach Reach
		want  string
	}{
		{Reach{}, ""},
		{Reach{Transport: TransportAuto}, ""},
		{Reach{Transport: TransportUDP}, ""},
		{Reach{Transport: TransportTLS, MTU: 1300}, "without effect: --transport tls, --mtu 1300; the wgexpose command"},
		{Reach{Proxy: "http://me:secret@proxy.example:3128"}, "without effect: --proxy; the wgexpose command"},
	} {
		var log strings.Builder // written by Run alone, and read after it
		name := fmt.Sprintf("guest-%d", i)
		b := start(t, Config{Dir: dir, Tunnels: []Tunnel{httpTunnel(name, "8089")}, Reach: c.reach, Logger: slog.New(slog.NewTextHandler(&log, nil))})
		b.tunnel(0, name, TunnelUp)
		if err := b.stop(); err != nil {
			t.Error(err)
		}
		if got := log.String(); !strings.Contains(got, c.want) || c.want == "" && strings.Contains(got, "without effect") || strings.Contains(got, "secret") {
			t.Errorf("%+v: logged %q, want %q", c.reach, got, c.want)
		}
	}
}
