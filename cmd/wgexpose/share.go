package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/rest"
	"github.com/wgexpose/wgexpose/screen"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// share publishes the tunnel that flags describe until a signal, and prints what
// happens to it.
func (a *app) share(cmd *cobra.Command, name string, values map[string]string, policy *policyFlags, out output) error {
	if err := policy.set(values); err != nil {
		return err
	}
	t, problems := parseTarget(name, values)
	if err := tunnelUsage(problems); err != nil {
		return err
	}
	return a.shareFrom(cmd, out, func() (configs.Agent, []configs.Tunnel, error) {
		cfg, err := configs.LoadAgent(cmd.Flags())
		return cfg, []configs.Tunnel{t}, err
	}, false)
}

// shareFrom shares what load finds, with follow each time that the file changes.
func (a *app) shareFrom(cmd *cobra.Command, out output, load loader, follow bool) error {
	cfg, tunnels, err := load()
	if err != nil {
		return err
	}
	dir, err := statedir.Open(cfg.State)
	if err != nil {
		return err
	}
	hashes := make(passwordHashes)
	specs, err := agentTunnels(tunnels, hashes)
	if err != nil {
		return err
	}
	d := newDrain(cmd.Context())
	defer d.stop()
	sh := &sharing{app: a, asked: out.asked, cfg: cfg, dir: dir, tunnels: tunnels, specs: specs, keep: len(tunnels) > 1 || cmd.Name() == "up"}
	printer := newEventPrinter(a, out.json)
	if follow {
		sh.reload = &reload{load: load, cfg: cfg, tunnels: tunnels, specs: specs, hashes: hashes, end: d.interrupt, tell: func(e agent.Event) {
			if out.json {
				printer.print(e)
			} else {
				a.hint("%s", configLine(e))
			}
		}}
	}
	printer.alone = !sh.keep
	printer.inspected = slices.ContainsFunc(specs, func(t agent.Tunnel) bool { return t.Kind == tunnel.HTTP && !t.Uninspected })
	if !out.json && !out.plain && a.wantsScreen() {
		// Without an answer there is nothing to show, and Run says why.
		if st, err := agent.ReadStatus(d.ctx, dir); err == nil && st.Revoked == "" {
			return a.onScreen(d, screen.Config{Title: st.Agent + " at " + st.Domain, Tunnels: specs}, func(l *live) error {
				defer l.watching(dir)()
				return sh.run(d.ctx, func(e agent.Event) { l.event(e, printer.print) })
			})
		}
	}
	defer context.AfterFunc(d.ctx, func() {
		if !out.json {
			a.hint("stopping: running connections have 10 s to finish; once more ends at once")
		}
	})()
	return sh.run(d.ctx, printer.print)
}

// sharing is one command that shares something.
type sharing struct {
	app     *app
	asked   string // see output
	cfg     configs.Agent
	dir     *statedir.Dir
	tunnels []configs.Tunnel
	specs   []agent.Tunnel
	keep    bool    // see agent.Config
	reload  *reload // nil: the file is not looked at again
}

// run shares until ctx ends.
func (s *sharing) run(ctx context.Context, tell func(agent.Event)) error {
	log := s.app.logger(s.cfg.LogLevel, s.cfg.LogFormat)
	super := supervise(ctx, log, func(ctx context.Context) error {
		_, err := agent.ReadStatus(ctx, s.dir)
		return err
	})
	defer super.end()
	defer rest.Begin(log)()
	apps := newApps(ctx, log)
	defer apps.end() // visitors are served until they are gone
	if err := apps.serve(s.tunnels, s.specs); err != nil {
		return err
	}
	var updates <-chan []agent.Tunnel
	if s.reload != nil {
		var stop func()
		updates, stop = s.reload.follow(ctx, apps, log)
		defer stop()
	}
	return agent.Run(ctx, agent.Config{
		Dir:     s.dir,
		Tunnels: s.specs,
		Keep:    s.keep,
		Health:  true,
		Reach:   agent.Reach{Transport: s.cfg.Transport, Proxy: s.cfg.Proxy, MTU: s.cfg.MTU},
		Inspect: inspectOf(s.cfg),
		Updates: updates,
		Version: buildVersion(),
		Certificates: agent.Certificates{
			Mode: s.cfg.Certificates, Email: s.cfg.ACMEEmail, CA: s.cfg.ACMECA, CARoot: s.cfg.ACMERoot,
		},
		Events: func(e agent.Event) {
			tell(e)
			s.noteScheme(e)
			super.event(e)
		},
		Logger: log,
	})
}

// noteScheme says that an address is not of the kind that was asked for: the edge
// alone knows whether it serves HTTPS, and then leads http:// there.
func (s *sharing) noteScheme(e agent.Event) {
	if !strings.HasPrefix(s.asked, "http://") || e.State != agent.TunnelUp || !strings.HasPrefix(e.PublicURL, "https://") {
		return
	}
	s.app.hint("%s was asked for; the edge serves HTTPS, at %s, and leads http:// there", printable(s.asked), printable(e.PublicURL))
	s.asked = "" // once is enough
}

// inspectOf is what the settings say of the inspector.
func inspectOf(cfg configs.Agent) agent.Inspect {
	if !cfg.Inspect {
		return agent.Inspect{}
	}
	return agent.Inspect{Addr: cfg.WebAddr, Unmask: cfg.Unmask}
}

// passwordHashes are what has been hashed before: a hash is another one each time,
// and slow.
type passwordHashes map[configs.Credential]tunnel.Credential

func (h passwordHashes) hash(c configs.Credential) (tunnel.Credential, error) {
	if known, ok := h[c]; ok {
		return known, nil
	}
	hashed, err := c.Hash()
	if err == nil {
		h[c] = hashed
	}
	return hashed, err
}

// agentTunnels turns settings into what the agent publishes. Passwords are
// hashed here, before they leave the process.
func agentTunnels(in []configs.Tunnel, hashes passwordHashes) ([]agent.Tunnel, error) {
	out := make([]agent.Tunnel, len(in))
	for i, t := range in {
		policy, err := t.Policy(hashes.hash)
		if err != nil {
			return nil, err
		}
		out[i] = agent.Tunnel{
			Spec: tunnel.Spec{
				Policy:           policy,
				Name:             t.Name,
				Kind:             t.Kind,
				Host:             t.URL,
				Port:             t.Port,
				Upstream:         t.Upstream,
				HostHeader:       t.HostHeader,
				Compression:      t.Compression,
				UpstreamProtocol: t.UpstreamProtocol,
				HSTS:             t.HSTS,
				TerminateAt:      t.TerminateAt,
			},
			ProxyProtocol:       t.ProxyProtocol,
			Uninspected:         t.Inspect != nil && !*t.Inspect,
			InsecureUpstreamTLS: !t.VerifiesUpstreamTLS(),
		}
	}
	return out, nil
}

// nameOrURL lets a tunnel be called by one of the two.
func nameOrURL(name, url string) error {
	if name != "" && url != "" {
		return usagef("give --name or --url, not both: the name under the edge's domain, or the whole address")
	}
	return nil
}

// tunnelUsage says what is wrong with a tunnel in terms of the command line.
func tunnelUsage(problems []configs.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	flags := map[string]string{
		"":                    "--name",
		"kind":                "kind",
		"upstream":            "TARGET",
		"url":                 "--url",
		"port":                "--port",
		"host_header":         "--host-header",
		"compression":         "--compression",
		"upstream_protocol":   "--upstream-protocol",
		"terminate_at":        "--terminate-at",
		"proxy_protocol":      "--proxy-protocol",
		"upstream_tls_verify": "--upstream-tls-verify",
	}
	text := ""
	for i, p := range problems {
		if i > 0 {
			text += "\n"
		}
		flag, ok := flags[p.Key]
		if !ok {
			flag = "--" + strings.ReplaceAll(p.Key, "_", "-")
		}
		text += flag + ": " + strings.TrimPrefix(p.Message, "target ")
	}
	return usagef("%s", text)
}
