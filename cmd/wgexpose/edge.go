package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/statedir"
)

func (a *app) edgeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "edge",
		Short: "Run an edge, or look after one",
		Long: `Run an edge: the public side, which takes visitors' connections and carries them
to the agents. The first start makes its keys and database.

The other commands act on the edge of the same state directory. They take
effect at once while it runs; with the edge stopped they work on its database.`,
		Example: `  wgexpose edge --domain example.com
  wgexpose edge --domain example.com --endpoint edge.example.com --acme-email admin@example.com
  wgexpose edge --domain auto
  wgexpose edge --domain localhost --tls internal --listen-https 127.0.0.1:8443 --listen-http off
  wgexpose edge --domain example.com --tls off --listen-http 127.0.0.1:8080
  wgexpose edge invite --name laptop`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.runEdge(cmd, asJSON)
		},
	}
	configs.EdgeFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	cmd.AddCommand(
		a.inviteCommand(), a.invitesCommand(),
		a.agentsCommand(), a.revokeCommand(),
		a.tunnelsCommand(), a.releaseCommand(),
		a.certsCommand(), a.caCommand(), a.edgeStatusCommand(),
	)
	return cmd
}

func (a *app) runEdge(cmd *cobra.Command, asJSON bool) error {
	cfg, err := configs.LoadEdge(cmd.Flags())
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(cfg.State, "edge.db")); cfg.Domain == "" && errors.Is(err, fs.ErrNotExist) {
		return usagef("the edge has no domain yet: name the one that its tunnels' host names lie under, with --domain example.com")
	}
	dir, err := statedir.Open(cfg.State)
	if err != nil {
		return err
	}
	ctx, stop := drainOnSignal(cmd.Context())
	defer stop()
	https, err := listen(ctx, cfg.ListenHTTPS, "listen-https", cfg.TLS != certs.Off)
	if err != nil {
		return err
	}
	http, err := listen(ctx, cfg.ListenHTTP, "listen-http", true)
	if err != nil {
		closeListener(https)
		return err
	}
	metrics, err := listen(ctx, cfg.Metrics, "metrics", true)
	if err != nil {
		closeListener(https)
		closeListener(http)
		return err
	}
	log := a.logger(cfg.LogLevel, cfg.LogFormat)
	http3, err := listenHTTP3(ctx, cfg, https, log)
	if err != nil {
		closeListener(https)
		closeListener(http)
		closeListener(metrics)
		return err
	}
	super := supervise(ctx, log, func(ctx context.Context) error { return edgeAnswers(ctx, dir) })
	defer super.end()
	e, err := edge.New(edge.Config{
		Dir:             dir,
		Domain:          cfg.Domain,
		Endpoint:        cfg.Endpoint,
		WG:              addrPort(cfg.ListenWG),
		MoreWG:          addrPorts(cfg.MoreWG),
		HTTPS:           https,
		HTTP3:           http3,
		HTTP:            http,
		Metrics:         metrics,
		TLS:             cfg.TLS,
		ACME:            cfg.ACME,
		ACMEDNS:         cfg.ACMEDNS,
		CertFiles:       cfg.CertFiles,
		CertFolder:      cfg.CertFolder,
		PublicHTTPSPort: cfg.PublicHTTPSPort,
		TCPPorts:        cfg.TCPPorts,
		ListenTCP:       cfg.ListenTCP,
		WarnRandomNames: cfg.WarnRandomNames,
		Handshakes:      cfg.Handshakes,
		TrustedProxies:  cfg.TrustedProxies,
		MTU:             cfg.MTU,
		Version:         buildVersion(),
		Ready: func(r edge.Ready) {
			super.Ready()
			super.Status("edge for " + r.Domain)
			a.printReady(r, asJSON)
		},
		Logger: log,
	})
	if err != nil {
		closeListener(https)
		closeListener(http)
		closeListener(metrics)
		if http3 != nil {
			http3.Close() // nothing has come yet
		}
		return err
	}
	return e.Run(ctx)
}

// edgeAnswers asks this very edge for something, the way that commands do.
func edgeAnswers(ctx context.Context, dir *statedir.Dir) (err error) {
	admin, err := edge.OpenAdmin(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, admin.Close()) }()
	_, err = admin.Invites(ctx)
	return err
}

// readyEvent is the line that "edge --json" prints when everything serves. A
// listener that is off has no address.
type readyEvent struct {
	Time            time.Time `json:"time"`
	Event           string    `json:"event"` // ready
	Domain          string    `json:"domain"`
	Endpoint        string    `json:"endpoint"`
	WG              string    `json:"wg"`
	MoreWG          []string  `json:"more_wg,omitempty"`
	HTTPS           string    `json:"https,omitempty"`
	HTTP            string    `json:"http,omitempty"`
	HTTP3           string    `json:"http3,omitempty"`
	Metrics         string    `json:"metrics,omitempty"`
	PublicHTTPSPort uint16    `json:"public_https_port,omitempty"`
	Warnings        []string  `json:"warnings,omitempty"`
}

func (a *app) printReady(r edge.Ready, asJSON bool) {
	e := readyEvent{
		Time: time.Now(), Event: "ready", Domain: r.Domain, Endpoint: r.Endpoint, WG: bound(r.WG),
		HTTPS: bound(r.HTTPS), HTTP3: bound(r.HTTP3), HTTP: bound(r.HTTP), Metrics: bound(r.Metrics), PublicHTTPSPort: r.PublicHTTPSPort, Warnings: r.Warnings,
	}
	udp := e.WG + " (udp)"
	for _, more := range r.MoreWG {
		e.MoreWG = append(e.MoreWG, bound(more))
		udp += ", " + bound(more) + " (udp)"
	}
	// Nobody may be reading stdout, which is no reason to stop serving.
	if asJSON {
		_ = a.printJSON(e)
		return
	}
	fmt.Fprintf(a.stdout, "edge for %s is ready\n", e.Domain)
	for _, line := range [][2]string{
		{"https", e.HTTPS}, {"http/3", withUDP(e.HTTP3)}, {"http", e.HTTP}, {"wireguard", udp}, {"metrics", metricsURL(e.Metrics)}, {"endpoint", e.Endpoint},
	} {
		if line[1] != "" {
			fmt.Fprintf(a.stdout, "  %-10s %s\n", line[0], line[1])
		}
	}
}

func metricsURL(addr string) string {
	if addr == "" {
		return ""
	}
	return "http://" + addr + "/metrics"
}

func withUDP(addr string) string {
	if addr == "" {
		return ""
	}
	return addr + " (udp)"
}

func bound(addr netip.AddrPort) string {
	if !addr.IsValid() {
		return ""
	}
	return netip.AddrPortFrom(addr.Addr().Unmap(), addr.Port()).String()
}

// addrPort is the form that the WireGuard socket takes: the unspecified IPv6
// address stands for every address of both families.
func addrPort(l configs.Listen) netip.AddrPort {
	addr := l.Addr
	if !addr.IsValid() {
		addr = netip.IPv6Unspecified()
	}
	return netip.AddrPortFrom(addr, l.Port)
}

func addrPorts(all []configs.Listen) []netip.AddrPort {
	out := make([]netip.AddrPort, len(all))
	for i, l := range all {
		out[i] = addrPort(l)
	}
	return out
}

// listen opens a TCP listener, or returns nil when it is off or not wanted.
func listen(ctx context.Context, l configs.Listen, flag string, wanted bool) (net.Listener, error) {
	if l.Off || !wanted {
		return nil, nil
	}
	var config net.ListenConfig
	ln, err := config.Listen(ctx, "tcp", l.String())
	switch {
	case err == nil:
		return ln, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: another program has this port; stop it, or choose another with --%s: %w", l, flag, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("listen on %s: this user may not use ports below 1024; run as root, give the program CAP_NET_BIND_SERVICE, or choose another with --%s: %w", l, flag, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("listen on %s: this machine does not have that address; choose another with --%s: %w", l, flag, err)
	}
	return nil, fmt.Errorf("listen on %s (--%s): %w", l, flag, err)
}

func closeListener(ln net.Listener) {
	if ln != nil {
		ln.Close() // nothing was accepted yet, so nothing can be lost
	}
}
