package edge

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/tunnel"
)

// server is one way for visitors to send requests.
type server interface {
	label() string
	serve() error          // until drain or close
	drain(context.Context) // takes nothing new, and waits for requests under way
	close()                // ends what is left
}

// tcpServer is an HTTP server and its listener.
type tcpServer struct {
	name     string
	http     *http.Server
	listener net.Listener
	run      func() // feeds listener; nil when it feeds itself
}

// servers makes the servers for the listeners that there are.
func (f *front) servers() []server {
	var all []server
	if f.cfg.HTTPS != nil {
		g := newGreeter(f, f.steady(f.cfg.HTTPS))
		s := f.server(wayHTTPS, g, http.HandlerFunc(f.serveSite))
		s.run = g.run
		if f.cfg.Streams != nil {
			s.http.Handler = f.cfg.Streams.upgrade(s.http.Handler)
		}
		if f.cfg.HTTP3 != nil {
			all = append(all, newHTTP3(f, f.cfg.HTTP3, proxy.RefuseAmbiguous(f.handler(f.tally.ways[wayHTTP3], http.HandlerFunc(f.serveSite)))))
			s.http.Handler = f.altSvc(s.http.Handler)
		}
		all = append(all, s)
	}
	if f.cfg.HTTP != nil {
		handler := http.Handler(http.HandlerFunc(f.serveSite))
		if f.certs != nil {
			handler = f.certs.HTTPChallenge(http.HandlerFunc(f.redirect))
		}
		all = append(all, f.server(wayHTTP, proxy.Strict(f.steady(f.cfg.HTTP)), handler))
	}
	return all
}

// server makes one server.
func (f *front) server(name string, l net.Listener, h http.Handler) *tcpServer {
	way := f.tally.ways[name]
	s := proxy.NewServer(f.handler(way, h), f.log.With("server", name))
	s.ConnState = way.state
	s.ReadHeaderTimeout, s.IdleTimeout = f.limits.header, f.limits.idle
	s.BaseContext = func(net.Listener) context.Context { return f.base }
	return &tcpServer{name: name, listener: l, http: s}
}

func (s *tcpServer) label() string { return s.name }

// serve serves until drain or close.
func (s *tcpServer) serve() error {
	var feeding sync.WaitGroup
	if s.run != nil {
		feeding.Go(s.run)
	}
	err := s.http.Serve(s.listener)
	s.listener.Close() // Serve does that too, but not when it was shut down before it began
	feeding.Wait()
	return err
}

// drain stops accepting and waits for requests under way. Upgraded connections
// are not the server's any more; the front's tracker has them.
func (s *tcpServer) drain(ctx context.Context) {
	// The error says that ctx ended first: the front cuts then.
	_ = s.http.Shutdown(ctx)
}

// close closes what is left. The listener is closed already.
func (s *tcpServer) close() { _ = s.http.Close() }

// serveSite answers a request for a tunnel's host.
func (f *front) serveSite(w http.ResponseWriter, r *http.Request) {
	host, err := tunnel.CanonicalHost(proxy.HostOnly(r.Host))
	if err != nil {
		proxy.WriteProblem(w, r, proxy.BadHost)
		return
	}
	if r.TLS != nil && !f.sameConnection(r.TLS.ServerName, host) {
		proxy.WriteProblem(w, r, proxy.Misdirected)
		return
	}
	// Once more, and not only at the handshake: connections live long, and
	// HTTP/2 brings requests for several hosts on one.
	rt := f.routes.Load().hosts[host]
	if rt == nil {
		proxy.WriteProblem(w, r, unknownHost)
		return
	}
	if rt.entry.PassesTLS() {
		// A browser may send it here, on a connection to another host of the same
		// certificate.
		proxy.WriteProblem(w, r, proxy.Misdirected)
		return
	}
	rt.ServeHTTP(w, r)
}

// sameConnection reports whether a connection opened for sni may carry a request
// for host: a browser sends both on one where the certificate covers both (RFC
// 9113, section 9.1.1). Where nothing is known of the certificate, the answer is
// no, and the visitor opens a connection of its own.
func (f *front) sameConnection(sni, host string) bool {
	if sni == "" {
		sni = f.cfg.Domain // certs shows the domain's certificate then
	}
	sni, err := tunnel.CanonicalHost(sni)
	return err == nil && (sni == host || f.shown.covers(sni, host))
}

// redirect sends a visitor of plain HTTP to HTTPS. It does so for names with and
// without a tunnel alike, so that names cannot be tried out here.
func (f *front) redirect(w http.ResponseWriter, r *http.Request) {
	host, err := tunnel.CanonicalHost(proxy.HostOnly(r.Host))
	if err != nil {
		proxy.WriteProblem(w, r, proxy.BadHost)
		return
	}
	if !f.ours(host) {
		proxy.WriteProblem(w, r, unknownHost)
		return
	}
	// An authority that asks for a challenge which nobody has set must not be
	// sent in a circle (RFC 8555, section 8.3).
	if strings.HasPrefix(r.URL.Path, "/.well-known/acme-challenge/") {
		proxy.WriteProblem(w, r, unknownChallenge)
		return
	}
	if port := f.cfg.PublicHTTPSPort; port != 0 && port != 443 {
		host = net.JoinHostPort(host, strconv.Itoa(int(port)))
	}
	path := r.URL.EscapedPath()
	if !strings.HasPrefix(path, "/") {
		path = "/" // "OPTIONS *", or an authority alone
	}
	if r.URL.RawQuery != "" {
		path += "?" + r.URL.RawQuery
	}
	w.Header().Set("Cache-Control", "no-cache") // the edge's port may change
	proxy.AnswerNow(w, r)
	http.Redirect(w, r, "https://"+host+path, http.StatusPermanentRedirect)
}

// ours reports whether HTTPS has an answer for host.
func (f *front) ours(host string) bool {
	domain := f.cfg.Domain
	return domain == "" || host == domain || strings.HasSuffix(host, "."+domain) ||
		f.routes.Load().hosts[host] != nil || f.certs.Covers(host)
}

// handler is what every server has around h.
func (f *front) handler(way *wayTally, h http.Handler) http.Handler {
	return f.cfg.Trusted.Believe(f.observed(way, h))
}

// observed counts requests, and logs them at debug level.
func (f *front) observed(way *wayTally, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer f.active.add()()
		seen := &observedWriter{ResponseWriter: w}
		start := time.Now()
		way.requests.Add(1)
		defer func() {
			way.requests.Add(-1)
			way.answered(seen.status)
			if !f.log.Enabled(r.Context(), slog.LevelDebug) {
				return
			}
			// No path and no query: they may hold secrets.
			f.log.Debug("request", "method", r.Method, "host", r.Host, "proto", r.Proto,
				"visitor", r.RemoteAddr, "status", seen.status, "took", time.Since(start))
		}()
		next.ServeHTTP(seen, r)
	})
}

// observedWriter remembers the status. 0: none was sent, or the connection was
// upgraded.
type observedWriter struct {
	http.ResponseWriter
	status int
}

func (w *observedWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *observedWriter) WriteHeader(status int) {
	if status >= http.StatusOK {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}
