package edge

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/proxy"
	"github.com/wgexpose/wgexpose/store"
)

// openPublic makes the public side and the reconciler between the two.
func (r *running) openPublic(ctx context.Context, key keys.Private, settings store.Settings) error {
	endpoint, warning, err := publicEndpoint(r.cfg.Endpoint, r.ready.WG)
	if err != nil {
		return err
	}
	if warning != "" {
		r.warn(warning)
	}
	r.ready.HTTPS, r.ready.HTTP = listenerAddr(r.cfg.HTTPS), listenerAddr(r.cfg.HTTP)
	if r.ready.Metrics = listenerAddr(r.cfg.Metrics); r.ready.Metrics.IsValid() && !r.ready.Metrics.Addr().Unmap().IsLoopback() {
		r.warn(fmt.Sprintf("the metrics on %s are for everybody who can connect there, with the names of agents and hosts: keep strangers out with a firewall, or give --metrics an address of this machine alone, such as 127.0.0.1:9090", r.ready.Metrics))
	}
	if r.cfg.HTTP3 != nil {
		if udp, ok := r.cfg.HTTP3.LocalAddr().(*net.UDPAddr); ok {
			r.ready.HTTP3 = udp.AddrPort()
		}
	}
	r.side = publicSide{domain: settings.Domain, scheme: "https", port: publicPort(r.cfg.PublicHTTPSPort, r.ready.HTTPS)}
	if r.cfg.TLS == certs.Off && r.cfg.PublicHTTPSPort == 0 {
		r.side.scheme, r.side.port = "http", r.ready.HTTP.Port()
	}
	r.ready.Domain, r.ready.Endpoint, r.ready.PublicHTTPSPort = settings.Domain, endpoint, r.side.port
	more, err := moreEndpoints(r.cfg.Endpoint, r.ready.MoreWG)
	if err != nil {
		return err
	}
	sv := serving{Endpoint: endpoint, More: strings.Join(more, ","), Scheme: r.side.scheme, Port: r.side.port}
	if r.self, err = selfEdge(key.Public(), sv); err != nil {
		return err
	}
	r.streams.setHost(proxy.HostOnly(endpoint))
	if err := saveServing(ctx, r.store, sv); err != nil {
		return err
	}
	if err := saveOwnCertificates(ctx, r.store, r.cfg.CertFiles, r.cfg.CertFolder); err != nil {
		return err
	}
	r.pointing = pointing{
		lookup: r.cfg.Lookup, domain: settings.Domain, endpoint: proxy.HostOnly(endpoint), listener: r.ready.HTTPS, local: localAddrs,
	}
	if r.cfg.TLS == certs.Off {
		r.pointing.listener = r.ready.HTTP
	}
	r.sessions, r.applied = newSessions(), newApplied()
	r.host = &sessionHost{
		sessions: r.sessions, timing: r.timing, domain: settings.Domain, version: r.cfg.Version, received: (&counters{read: r.dev.Peers, fresh: r.timing.Away / 50}).received, call: r.dev.Handshake, log: r.log,
	}
	if r.cfg.TLS != certs.Off {
		if r.certs, err = certs.New(r.certsConfig()); err != nil {
			return err
		}
	}
	r.front = newFront(frontConfig{
		Stack: r.stack, Overlay: r.overlay, Edge: edgeNode, HTTPS: r.cfg.HTTPS, HTTP: r.cfg.HTTP, HTTP3: r.cfg.HTTP3,
		ListenTCP: r.cfg.ListenTCP, Certs: r.certs, Streams: r.streams, PublicHTTPSPort: r.side.port, Domain: settings.Domain, Logger: r.log,
		WarnRandomNames: r.cfg.WarnRandomNames, Handshakes: r.cfg.Handshakes, Trusted: r.cfg.TrustedProxies,
	})
	r.reconcile = newReconciler(reconcilerConfig{
		store: r.store, overlay: r.overlay, side: r.side, peers: r.dev, front: r.front, stack: r.stack,
		sessions: r.sessions, applied: r.applied, farewell: r.timing.Farewell, log: r.log,
	})
	return nil
}

func (r *running) certsConfig() certs.Config {
	cfg := certs.Config{
		Mode: r.cfg.TLS, Domain: r.side.domain, Storage: filepath.Join(r.cfg.Dir.String(), certsDir),
		Issuers: r.cfg.ACME, DNS: r.cfg.ACMEDNS, Files: r.cfg.CertFiles, Folder: r.cfg.CertFolder, Logger: r.log,
		Allowed: func(host string) bool {
			e, ok := r.reconcile.table.Load().ByHost(host)
			return ok && e.EndsTLSAtEdge()
		},
	}
	if r.cfg.HTTP == nil {
		cfg.Challenges = []certs.Challenge{certs.TLSALPN01}
	}
	return cfg
}

func (r *running) certificates() ([]certs.Status, error) {
	if r.certs == nil {
		return nil, refuse(RefusedNotFound, "this edge runs with --tls off, and has no certificates")
	}
	return r.certs.Status(), nil
}

// listenerAddr is the bound address of a listener that may be nil.
func listenerAddr(l net.Listener) netip.AddrPort {
	if l == nil {
		return netip.AddrPort{}
	}
	if a, ok := l.Addr().(*net.TCPAddr); ok {
		return a.AddrPort()
	}
	return netip.AddrPort{}
}
