package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// routes is one table made ready to serve: immutable, swapped as a whole.
type routes struct {
	hosts    map[string]*route           // canonical host name
	ports    map[uint16]*route           // public TCP port
	services map[netip.AddrPort]*service // overlay address of the tunnel
}

func noRoutes() *routes {
	return &routes{
		hosts:    make(map[string]*route),
		ports:    make(map[uint16]*route),
		services: make(map[netip.AddrPort]*service),
	}
}

// route is one public name or port and the service behind it.
type route struct {
	front   *front
	entry   *tunnel.Entry
	service *service
}

// service is the way to one tunnel's upstream, with the connections that wait on
// it. It outlives changes of the table that do not touch the tunnel: an agent
// gives a changed upstream a new id, and so a new address.
type service struct {
	id     tunnel.ID
	addr   netip.AddrPort
	node   *node
	live   *liveness
	dialer dialer
	wait   time.Duration // for a dial
	dials  chan struct{} // holds one element for each dial under way; TCP only

	log   *slog.Logger
	spec  tunnel.Spec // with the agent's name it tells whether the service may be kept
	agent string
	proxy *proxy.Proxy // nil where connections are carried and not requests
}

// route makes the routes of t, with the services of before that still fit.
func (f *front) route(t *tunnel.Table, live func(tunnel.NodeID) *liveness, before *routes) *routes {
	rs := noRoutes()
	for e := range t.All() {
		s, alive := before.services[e.Addr], live(e.Node)
		if s == nil || !s.fits(e, alive) {
			s = f.service(e, alive)
		}
		rs.services[e.Addr] = s
		r := &route{front: f, entry: e, service: s}
		switch e.Kind {
		case tunnel.HTTP, tunnel.TLS:
			rs.hosts[e.Host] = r
		case tunnel.TCP:
			rs.ports[e.Port] = r
		}
	}
	return rs
}

// fits reports whether s can go on serving what e says.
func (s *service) fits(e *tunnel.Entry, live *liveness) bool {
	was, is := s.spec, e.Spec
	was.Policy, is.Policy = nil, nil // the route's matter, and another pointer each time
	return s.live == live && s.node.id == e.Node && s.agent == e.Agent && was == is
}

func (f *front) service(e *tunnel.Entry, live *liveness) *service {
	if live == nil {
		live = newLiveness() // nothing is known of the node: away
	}
	s := &service{
		id:     e.ID,
		addr:   e.Addr,
		node:   f.node(e.Node),
		live:   live,
		dialer: f.dialer,
		wait:   f.limits.dial,
		log:    f.log.With("tunnel", e.Name, "agent", e.Agent),
		spec:   e.Spec,
		agent:  e.Agent,
		dials:  make(chan struct{}, f.limits.dials),
	}
	if e.Kind != tunnel.HTTP || e.PassesTLS() {
		return s
	}
	s.proxy = proxy.New(proxy.Config{
		// Pooled connections are shared between visitors, so they come from the
		// edge's own address; the visitor travels in X-Forwarded-For.
		Dial:        func(ctx context.Context) (net.Conn, error) { return s.dial(ctx, netip.AddrPort{}) },
		HostHeader:  e.HostHeader,
		HTTP2:       e.UpstreamProtocol == tunnel.HTTP2,
		Compression: e.Compression,
		HSTS:        e.HSTS,
		BodyWait:    f.limits.body,
		StreamWait:  f.limits.stream,
		Logger:      s.log,
	})
	return s
}

// close lets go of idle connections. What is under way finishes.
func (s *service) close() {
	if s.proxy != nil {
		s.proxy.Close() // never fails
	}
}

// reachable returns nil, or the problem that makes dialling pointless.
func (s *service) reachable() *proxy.Problem {
	if s.node.life().Err() != nil {
		return nodeDropped
	}
	if s.live.Away() {
		return agentAway
	}
	return nil
}

// dial opens a connection to the upstream, from the given overlay address or the
// edge's own. The error wraps a *proxy.Problem unless the caller's ctx ended it.
func (s *service) dial(ctx context.Context, from netip.AddrPort) (net.Conn, error) {
	start := time.Now()
	select {
	case s.dials <- struct{}{}:
		defer func() { <-s.dials }()
	default:
		// net/http goes on dialling for a request that is over (the next one may take
		// the connection), so the visitors' requests are no bound by themselves.
		return nil, proxy.UpstreamBusy
	}
	dialCtx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	life := s.node.life()
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()
	dialCtx, stop := context.WithTimeoutCause(dialCtx, s.wait, proxy.UpstreamTimeout)
	defer stop()
	defer context.AfterFunc(s.live.presence(), func() { cancel(agentAway) })()

	conn, err := s.dialer.DialTCP(dialCtx, from, s.addr)
	if err == nil {
		return conn, nil
	}
	var problem *proxy.Problem
	switch {
	case errors.As(context.Cause(dialCtx), &problem):
		return nil, problem
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.Is(err, syscall.ECONNREFUSED):
		why := s.live.Refusal(ctx, s.id, start)
		if why == nil {
			return nil, fmt.Errorf("%w: %w", upstreamProblem(nil), err)
		}
		return nil, fmt.Errorf("%w: %s", upstreamProblem(why), why.reason)
	}
	return nil, fmt.Errorf("%w: %w", overlayBroken, err)
}

// ServeHTTP carries one request to the upstream, or says why it cannot.
//
// An agent that turns away while the answer is awaited ends the request only if
// nothing was heard from it since the request was sent: then the request may
// never have arrived. Otherwise the upstream may be working on it, and waiting
// goes on.
func (rt *route) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rt.front.warn(rt.entry, w, r) {
		return
	}
	w, r, admitted := rt.front.enforce(rt.entry, w, r)
	if !admitted {
		return
	}
	s := rt.service
	if problem := s.reachable(); problem != nil {
		proxy.WriteProblem(w, r, problem)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	life := s.node.life()
	defer context.AfterFunc(life, func() { cancel(context.Cause(life)) })()

	var sent atomic.Pointer[time.Time]
	unwatch := context.AfterFunc(s.live.presence(), func() {
		if at := sent.Load(); at == nil || !s.live.HeardSince(*at) {
			cancel(agentAway)
		}
	})
	defer unwatch()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteHeaders: func() {
			now := time.Now()
			sent.Store(&now)
		},
		GotFirstResponseByte: func() { unwatch() },
	})
	s.proxy.ServeHTTP(w, r.WithContext(ctx))
}
