package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/wg"
)

// Results of a check.
const (
	CheckOK   = "ok"
	CheckWarn = "warn" // works, and could be better
	CheckFail = "fail" // does not work
	CheckSkip = "skip" // could not be looked at
)

// Check is one thing that was looked at on the way to the edges.
type Check struct {
	Check  string `json:"check"`            // config (of who calls Diagnose), state, agent, dns, proxy, tls, clock, udp, mtu, nat, buffers
	Target string `json:"target,omitempty"` // what it is about, where there are several
	Result string `json:"result"`
	Found  string `json:"found"`            // what is, or what is wrong
	Advice string `json:"advice,omitempty"` // what to do
}

// DiagnoseOptions are how Diagnose gets to the edges.
type DiagnoseOptions struct {
	Reach  Reach
	Logger *slog.Logger // nil discards

	wait     time.Duration // for one answer; 0 = diagnoseWait; tests shorten it
	resolver resolver      // nil: the system's
}

const (
	// diagnoseWait is for one answer, and diagnoseMTU for the size of packets
	// to be found.
	diagnoseWait = 4 * time.Second
	diagnoseMTU  = 8 * time.Second
	// clockOff is by how much a clock may differ from the edge's, of which the
	// answer's own time is a part.
	clockOff = 30 * time.Second
)

// Diagnose looks at all that is between this machine and its edges, and tells of
// each thing as it is found. It does not disturb a command that runs; without
// one, it uses the agent's key itself for a moment. The error is the context's.
func Diagnose(ctx context.Context, dir *statedir.Dir, o DiagnoseOptions, tell func(Check)) error {
	if err := o.Reach.Validate(); err != nil {
		return err
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.wait == 0 {
		o.wait = diagnoseWait
	}
	if o.resolver == nil {
		o.resolver = net.DefaultResolver.LookupNetIP
	}
	d := &diagnosis{dir: dir, o: o, tell: tell}
	if !d.state() {
		return ctx.Err()
	}
	for _, edge := range d.joined.Edges {
		d.names(ctx, edge)
		d.streams(ctx, edge)
	}
	d.clock()
	d.datagrams(ctx)
	d.buffers()
	return ctx.Err()
}

// diagnosis is one Diagnose.
type diagnosis struct {
	dir    *statedir.Dir
	o      DiagnoseOptions
	tell   func(Check)
	joined edgesState
	key    keys.Private
}

func (d *diagnosis) ok(check, target, found string, args ...any) {
	d.tell(Check{Check: check, Target: target, Result: CheckOK, Found: fmt.Sprintf(found, args...)})
}

func (d *diagnosis) bad(result, check, target, found, advice string) {
	d.tell(Check{Check: check, Target: target, Result: result, Found: found, Advice: advice})
}

// state looks at what is on disk. Without it there is nowhere to go.
func (d *diagnosis) state() bool {
	var err error
	if d.joined, err = loadEdges(d.dir); err != nil {
		d.bad(CheckFail, "state", "", err.Error(), "join an edge: wgexpose join TOKEN")
		return false
	}
	if err := d.joined.refusal(); err != nil {
		d.bad(CheckFail, "state", "", err.Error(), "ask the edge's owner for a new invite, and join again")
		return false
	}
	if d.key, err = loadKey(d.dir); err != nil {
		d.bad(CheckFail, "state", "", err.Error(), "put the key file right, as it says")
		return false
	}
	d.ok("state", "", "agent %s of %s", d.joined.Name, d.joined.Domain)
	return true
}

// names looks up the edge's host names.
func (d *diagnosis) names(ctx context.Context, edge keys.Edge) {
	var seen []string
	for _, ep := range edge.Endpoints {
		host, _, err := net.SplitHostPort(ep.Addr)
		if err != nil || slices.Contains(seen, host) {
			continue
		}
		seen = append(seen, host)
		if _, err := netip.ParseAddr(host); err == nil {
			continue
		}
		looking, cancel := context.WithTimeout(ctx, d.o.wait)
		begun := time.Now()
		addrs, err := d.o.resolver(looking, "ip", host)
		took := time.Since(begun)
		cancel()
		if err != nil {
			d.bad(CheckFail, "dns", host, err.Error(), "check this machine's network and name servers, and that the name still exists")
			continue
		}
		words := make([]string, len(addrs))
		for i, a := range addrs {
			words[i] = a.Unmap().String()
		}
		d.ok("dns", host, "%s, in %v", strings.Join(words, ", "), took.Round(time.Millisecond))
	}
}

// streams looks at the edge's HTTPS, by which packets go where UDP does not.
func (d *diagnosis) streams(ctx context.Context, edge keys.Edge) {
	find, err := d.o.Reach.proxy()
	if err != nil {
		d.bad(CheckFail, "proxy", "", err.Error(), "correct --proxy or HTTPS_PROXY")
		return
	}
	dialer := streamDialer{find}
	if !hasStreamEndpoint(edge) {
		d.bad(CheckSkip, "tls", "", errNoStreamEndpoint.Error(), "")
	}
	for _, ep := range edge.Endpoints {
		if ep.Kind != keys.EndpointHTTPS {
			continue
		}
		switch via, err := find(&url.URL{Scheme: "https", Host: ep.Addr}); {
		case err != nil:
			d.bad(CheckFail, "proxy", ep.Addr, err.Error(), "correct --proxy or HTTPS_PROXY")
		case via != nil:
			d.ok("proxy", ep.Addr, "TLS goes through %s", via.Redacted())
		default:
			d.ok("proxy", ep.Addr, "none is set")
		}
		d.stream(ctx, &dialer, ep.Addr)
		d.date(ctx, &dialer, ep.Addr)
	}
}

func (d *diagnosis) stream(ctx context.Context, dialer *streamDialer, addr string) {
	ctx, cancel := context.WithTimeout(ctx, 2*d.o.wait)
	defer cancel()
	begun := time.Now()
	c, _, err := dialer.dialTLS(ctx, addr, wg.StreamProtocol)
	if err == nil {
		c.Close()
		d.ok("tls", addr, "takes WireGuard packets, in %v", time.Since(begun).Round(time.Millisecond))
		return
	}
	var other *notStreamError
	if !errors.As(err, &other) {
		d.bad(CheckFail, "tls", addr, err.Error(),
			"if this network lets programs out through a proxy only, name it with --proxy; else check that the edge runs and that its firewall lets this port in")
		return
	}
	if c, _, wsErr := dialer.dialWebSocket(ctx, addr); wsErr == nil {
		c.Close()
		d.bad(CheckWarn, "tls", addr, "something on the way ends TLS by itself and lets only HTTP through; packets go over a WebSocket", "nothing; it works, a little slower")
		return
	}
	if errors.Is(err, context.DeadlineExceeded) {
		d.bad(CheckFail, "tls", addr, err.Error(), "a connection is made, and then nothing more comes: large packets are lost on the way (see mtu), or a firewall looks into TLS; use another network, or have the machine that is in the way repaired")
		return
	}
	d.bad(CheckFail, "tls", addr, err.Error(), "what answers there is not this edge, or something on the way that forbids WebSockets: check the address, or use another network")
}

// date compares clocks, by what the edge's web server says.
func (d *diagnosis) date(ctx context.Context, dialer *streamDialer, addr string) {
	ctx, cancel := context.WithTimeout(ctx, d.o.wait)
	defer cancel()
	c, _, err := dialer.dialTLS(ctx, addr, "http/1.1")
	if err != nil {
		return // told by stream
	}
	transport := &http.Transport{DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }, MaxResponseHeaderBytes: maxProxyAnswer}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+addr+"/", nil)
	if err != nil {
		c.Close()
		return
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		d.bad(CheckSkip, "clock", addr, "the edge does not say what time it is: "+err.Error(), "")
		return
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 1) // a HEAD has none
	there, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		d.bad(CheckSkip, "clock", addr, "the edge does not say what time it is", "")
		return
	}
	off := wg.Now().Sub(there).Round(time.Second)
	if off.Abs() > clockOff {
		d.bad(CheckWarn, "clock", addr, fmt.Sprintf("this machine's clock is off by %v from the edge's", off), "set the clock of the one that is wrong, best by NTP: WireGuard refuses an agent whose clock was set back")
		return
	}
	d.ok("clock", addr, "as the edge's, to %v", clockOff)
}

// clock compares this machine's clock with itself.
func (d *diagnosis) clock() {
	c, err := openClock(d.dir)
	if err != nil {
		d.bad(CheckWarn, "clock", "", err.Error(), "nothing; it is written anew at the next connection")
		return
	}
	if err := c.check(); err != nil {
		d.bad(CheckFail, "clock", "", err.Error(), "set the clock right")
	}
}
