package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/static"
	"github.com/wgexpose/wgexpose/tunnel"
)

// echoTarget is the upstream of "http --app echo", as people see it.
const echoTarget = "app:echo"

// parseTarget is configs.ParseTunnel for the command line, where the target of an
// http tunnel may be an app of this program.
func parseTarget(name string, values map[string]string) (configs.Tunnel, []configs.Problem) {
	if values["upstream"] != echoTarget || values["kind"] != string(tunnel.HTTP) {
		return configs.ParseTunnel(name, values)
	}
	values["upstream"] = "1" // stands in for what is checked
	t, problems := configs.ParseTunnel(name, values)
	t.Upstream = echoTarget
	return t, problems
}

// apps are the web servers of this process that tunnels lead to: folders and
// apps. They listen where only this user can connect. A folder has one server,
// which tunnels that come later find again.
type apps struct {
	ctx     context.Context // of the servers
	cancel  context.CancelFunc
	dir     string // of sockets; empty: none
	via     map[site]string
	servers errgroup.Group
	folders []*static.Folder
	log     *slog.Logger
}

// site is what a server shows.
type site struct {
	folder string // "" for the echo app
	static.Options
}

// newApps starts nothing. Servers live until end is called, whatever becomes of
// ctx: the drain needs them.
func newApps(ctx context.Context, log *slog.Logger) *apps {
	a := &apps{via: make(map[site]string), log: log}
	a.ctx, a.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return a
}

// serve starts a server for each tunnel that needs one, and writes into specs
// where it is.
func (a *apps) serve(tunnels []configs.Tunnel, specs []agent.Tunnel) error {
	for i, t := range tunnels {
		if t.Folder == "" && t.Upstream != echoTarget {
			continue
		}
		s := site{t.Folder, static.Options{Listing: t.Listing == nil || *t.Listing, SPA: t.SPA}}
		via, err := a.find(s)
		if err != nil {
			return fmt.Errorf("share %s: %w", t.Upstream, err)
		}
		specs[i].Via = via
	}
	return nil
}

// find is where the site is served; it is from now on if it was not before.
func (a *apps) find(s site) (string, error) {
	if via, ok := a.via[s]; ok {
		return via, nil
	}
	handler := http.Handler(http.HandlerFunc(static.Echo))
	if s.folder != "" {
		folder, err := static.Open(s.folder, s.Options)
		if err != nil {
			return "", wrong(err)
		}
		a.folders = append(a.folders, folder)
		handler = folder
	}
	listener, via, err := a.listen(a.ctx, len(a.via))
	if err != nil {
		return "", err
	}
	a.via[s] = via
	a.servers.Go(func() error { return serveHTTP(a.ctx, listener, handler) })
	return via, nil
}

// listen opens a socket in a private directory, or a port of this machine where
// programs cannot rely on sockets.
func (a *apps) listen(ctx context.Context, i int) (net.Listener, string, error) {
	var config net.ListenConfig
	if runtime.GOOS == "windows" {
		l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, "", err
		}
		return l, "http://" + l.Addr().String(), nil
	}
	if a.dir == "" {
		dir, err := os.MkdirTemp("", "wgexpose-") // mode 0700
		if err != nil {
			return nil, "", err
		}
		a.dir = dir
	}
	u, err := tunnel.ParseUpstream(tunnel.HTTP, "unix:"+filepath.Join(a.dir, fmt.Sprintf("%d.sock", i)))
	if err != nil {
		return nil, "", err
	}
	l, err := config.Listen(ctx, u.Network(), u.Address())
	return l, u.String(), err
}

// end stops the servers and removes their sockets.
func (a *apps) end() {
	a.cancel()
	err := a.servers.Wait()
	for _, f := range a.folders {
		err = errors.Join(err, f.Close())
	}
	if a.dir != "" {
		err = errors.Join(err, os.RemoveAll(a.dir))
	}
	if err != nil {
		a.log.Warn("end the servers of folders", "err", err)
	}
}
