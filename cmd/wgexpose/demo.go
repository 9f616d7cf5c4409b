package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/screen"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

const (
	demoDomain = "localhost"
	demoHTTPS  = "127.0.0.1:8443"
	// demoTries is how many ports from that one on are tried before the system
	// is asked for any.
	demoTries = 20
)

func (a *app) demoCommand() *cobra.Command {
	var plain bool
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run everything on this machine: edge, agent and a web app",
		Long: `Run an edge, an agent and a small web app on this machine until Ctrl-C, joined by
real WireGuard packets over loopback. It needs no root, no domain and no network,
and leaves nothing behind.`,
		Example: `  wgexpose demo
  wgexpose demo --listen-https 127.0.0.1:9443`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			// The demo reads no file: it must work the same everywhere.
			settings, err := configs.LoadDemo(cmd.Flags())
			if err != nil {
				return err
			}
			drain := newDrain(cmd.Context())
			defer drain.stop()
			run := func(l *live) error {
				d := &demo{app: a, live: l, log: a.logger(settings.LogLevel, settings.LogFormat)}
				return d.run(drain.ctx, settings.ListenHTTPS)
			}
			if plain || !a.wantsScreen() {
				return run(nil)
			}
			return a.onScreen(drain, screen.Config{Title: "demo: edge, agent and app on this machine", Tunnels: []agent.Tunnel{
				{Spec: tunnel.Spec{Name: "demo", Kind: tunnel.HTTP}},
				{Spec: tunnel.Spec{Name: "echo", Kind: tunnel.TCP}},
			}}, run)
		},
	}
	configs.DemoFlags(cmd.Flags(), demoHTTPS)
	plainFlag(cmd, &plain)
	return cmd
}

// demo is one run: an edge and an agent in one process, which know nothing of
// each other but an invite.
type demo struct {
	*app
	live *live // nil: lines are printed
	log  *slog.Logger
	dir  string // holds all state, removed at the end
}

func (d *demo) run(ctx context.Context, address configs.Listen) (err error) {
	if d.dir, err = os.MkdirTemp("", "wgexpose-demo-"); err != nil {
		return fmt.Errorf("make a directory for the demo: %w", err)
	}
	defer func() {
		if removed := os.RemoveAll(d.dir); err == nil {
			err = removed
		}
	}()
	https, err := demoListener(ctx, address)
	if err != nil {
		return err
	}
	edgeDir, err := statedir.Open(filepath.Join(d.dir, "edge"))
	if err != nil {
		https.Close()
		return err
	}
	ready := make(chan edge.Ready, 1)
	e, err := edge.New(edge.Config{
		Dir:       edgeDir,
		Domain:    demoDomain,
		WG:        netip.MustParseAddrPort("127.0.0.1:0"),
		HTTPS:     https,
		TLS:       certs.Internal,
		TCPPorts:  tunnel.PortRange{First: 20000, Last: 29999},
		ListenTCP: netip.MustParseAddr("127.0.0.1"),
		Version:   buildVersion(),
		Ready:     func(r edge.Ready) { ready <- r },
		Logger:    d.log,
	})
	if err != nil {
		https.Close()
		return err
	}
	// The edge outlives the agent, so that running requests can end: it stops
	// when the agent's side has returned.
	edgeCtx, stopEdge := context.WithCancel(context.WithoutCancel(ctx))
	defer stopEdge()
	agentCtx, stopAgent := context.WithCancel(ctx)
	defer stopAgent()
	var running errgroup.Group
	running.Go(func() error {
		defer stopAgent()
		return e.Run(edgeCtx)
	})
	running.Go(func() error {
		defer stopEdge()
		select {
		case r := <-ready:
			return d.agent(agentCtx, edgeDir, r)
		case <-agentCtx.Done():
			return nil
		}
	})
	return running.Wait()
}

// agent joins the edge, and shares the app and the echo until ctx ends.
func (d *demo) agent(ctx context.Context, edgeDir *statedir.Dir, ready edge.Ready) error {
	dir, err := statedir.Open(filepath.Join(d.dir, "agent"))
	if err != nil {
		return err
	}
	if err := d.join(ctx, edgeDir, dir); err != nil {
		return err
	}
	ca, err := d.writeCA(edgeDir)
	if err != nil {
		return err
	}
	app, err := demoApp()
	if err != nil {
		return err
	}
	web, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the app: %w", err)
	}
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		web.Close()
		return fmt.Errorf("listen for the echo: %w", err)
	}
	// The upstreams outlive the agent in the same way.
	upstreamCtx, stopUpstreams := context.WithCancel(context.WithoutCancel(ctx))
	defer stopUpstreams()
	agentCtx, stopAgent := context.WithCancel(ctx)
	defer stopAgent()
	var running errgroup.Group
	running.Go(func() error {
		defer stopAgent()
		return serveHTTP(upstreamCtx, web, app)
	})
	running.Go(func() error {
		defer stopAgent()
		return serveEcho(upstreamCtx, echo)
	})
	if d.live != nil {
		defer d.live.watching(dir)()
	}
	running.Go(func() error {
		defer stopUpstreams()
		waiting := &demoEvents{demo: d, ready: ready, ca: ca, urls: make(map[string]string)}
		return agent.Run(agentCtx, agent.Config{
			Dir: dir,
			Tunnels: []agent.Tunnel{
				{Spec: tunnel.Spec{Name: "demo", Kind: tunnel.HTTP, Upstream: "http://" + web.Addr().String()}},
				{Spec: tunnel.Spec{Name: "echo", Kind: tunnel.TCP, Upstream: "tcp://" + echo.Addr().String()}},
			},
			Inspect: agent.Inspect{Addr: configs.DefaultWebAddr},
			Version: buildVersion(),
			Events:  waiting.event,
			Logger:  d.log,
		})
	})
	return running.Wait()
}

func (d *demo) join(ctx context.Context, edgeDir, dir *statedir.Dir) error {
	admin, err := edge.OpenAdmin(ctx, edgeDir)
	if err != nil {
		return err
	}
	defer admin.Close()
	made, err := admin.Invite(ctx, edge.InviteOptions{Name: "demo"})
	if err != nil {
		return err
	}
	invite, err := keys.ParseInvite(made.Token)
	if err != nil {
		return err
	}
	_, err = agent.Join(ctx, dir, invite, agent.JoinOptions{Version: buildVersion(), Logger: d.log})
	return err
}

func (d *demo) writeCA(edgeDir *statedir.Dir) (string, error) {
	pem, err := edge.CA(edgeDir)
	if err != nil {
		return "", err
	}
	path := filepath.Join(d.dir, "ca.pem")
	return path, os.WriteFile(path, pem, 0o600)
}

// demoListener takes the address, or when its port is taken the next free one,
// unless the user chose it.
func demoListener(ctx context.Context, l configs.Listen) (net.Listener, error) {
	if l.String() != demoHTTPS {
		return listen(ctx, l, "listen-https", true)
	}
	for try := range demoTries {
		next := l
		next.Port += uint16(try)
		ln, err := listen(ctx, next, "listen-https", true)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return ln, err
		}
	}
	l.Port = 0
	return listen(ctx, l, "listen-https", true)
}

// demoEvents waits for both tunnels and then tells the user what to try. Events
// come one at a time.
type demoEvents struct {
	*demo
	ready edge.Ready
	ca    string
	urls  map[string]string // by tunnel
	page  string            // the inspector's, "" when it could not be opened
	told  bool
}

func (d *demoEvents) event(e agent.Event) {
	wrong := func(e agent.Event) {
		if e.Event == agent.EventTunnel && e.Error != nil {
			d.hint("%s", tunnelLine(e))
		}
	}
	if d.live != nil {
		d.live.event(e, wrong)
	} else {
		wrong(e)
	}
	if e.Event == agent.EventInspector && e.State == agent.InspectorUp {
		d.page = e.URL
	}
	if e.Event == agent.EventTunnel && e.State == agent.TunnelUp {
		d.urls[e.Name] = e.PublicURL
	}
	if d.told || d.urls["demo"] == "" || d.urls["echo"] == "" {
		return
	}
	d.told = true
	if d.live != nil {
		d.live.Notes(
			screen.Note{Text: "A browser asks about the certificate, which comes from the demo's own CA; curl is told to trust it:"},
			screen.Note{Text: d.curl(), Command: true})
	} else {
		d.tell()
	}
}

// curl is a command line that gets the page.
func (d *demoEvents) curl() string {
	page := d.urls["demo"]
	host := strings.TrimPrefix(page, "https://")
	_, port, err := net.SplitHostPort(host)
	if err != nil {
		port, host = "443", host+":443"
	}
	name := strings.TrimSuffix(host, ":"+port)
	ip := d.ready.HTTPS.Addr().Unmap()
	if ip.IsUnspecified() {
		ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	resolved := ip.String()
	if ip.Is6() {
		resolved = "[" + resolved + "]"
	}
	return fmt.Sprintf("curl --cacert %s --resolve %s:%s:%s %s/", shellQuote(d.ca), name, port, resolved, page)
}

func (d *demoEvents) tell() {
	curl, inspector := d.curl(), ""
	if d.page != "" {
		inspector = "\n  requests   " + d.page
	}
	// Nobody may be reading, which is no reason to stop.
	fmt.Fprintf(d.stdout, `wgexpose demo: edge, agent and app in one process, joined by WireGuard over loopback

  edge       https on %s, wireguard on %s (udp)
  web app    %s
  tcp echo   %s%s

A page, a WebSocket and a streamed answer. A browser asks about the certificate,
which comes from the demo's own CA; curl is told to trust it:

  %s
  %sstream

Ctrl-C ends it and removes everything.
`, bound(d.ready.HTTPS), bound(d.ready.WG), d.urls["demo"], d.urls["echo"], inspector,
		curl, strings.Replace(curl, "curl ", "curl --no-buffer ", 1))
}

// shellQuote makes a path one word of a POSIX shell.
func shellQuote(s string) string {
	if strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/._-+:=@%") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
