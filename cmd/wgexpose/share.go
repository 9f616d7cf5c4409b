package main

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/statedir"
	"github.com/wgexpose/wgexpose/tunnel"
)

// share publishes tunnels until a signal, and prints what happens to them.
func (a *app) share(cmd *cobra.Command, tunnels []configs.Tunnel, asJSON bool) error {
	cfg, err := configs.LoadAgent(cmd.Flags())
	if err != nil {
		return err
	}
	dir, err := statedir.Open(cfg.State)
	if err != nil {
		return err
	}
	ctx, stop := drainOnSignal(cmd.Context())
	defer stop()
	log := a.logger(cfg.LogLevel, cfg.LogFormat)
	super := supervise(ctx, log, func(ctx context.Context) error {
		_, err := agent.ReadStatus(ctx, dir)
		return err
	})
	defer super.end()
	specs, err := agentTunnels(tunnels)
	if err != nil {
		return err
	}
	apps, err := serveApps(ctx, tunnels, specs, log)
	if err != nil {
		return err
	}
	defer apps.end() // visitors are served until they are gone
	keep := len(tunnels) > 1 || cmd.Name() == "up"
	printer := newEventPrinter(a, asJSON)
	printer.alone = !keep
	printer.inspected = slices.ContainsFunc(specs, func(t agent.Tunnel) bool { return t.Kind == tunnel.HTTP && !t.Uninspected })
	defer context.AfterFunc(ctx, func() {
		if !asJSON {
			a.hint("stopping: running connections have 10 s to finish; once more ends at once")
		}
	})()
	return agent.Run(ctx, agent.Config{
		Dir:     dir,
		Tunnels: specs,
		Keep:    keep,
		Reach:   agent.Reach{Transport: cfg.Transport, Proxy: cfg.Proxy},
		Inspect: inspectOf(cfg),
		Version: buildVersion(),
		Certificates: agent.Certificates{
			Mode: cfg.Certificates, Email: cfg.ACMEEmail, CA: cfg.ACMECA, CARoot: cfg.ACMERoot,
		},
		Events: func(e agent.Event) {
			printer.print(e)
			super.event(e)
		},
		Logger: log,
	})
}

// inspectOf is what the settings say of the inspector.
func inspectOf(cfg configs.Agent) agent.Inspect {
	if !cfg.Inspect {
		return agent.Inspect{}
	}
	return agent.Inspect{Addr: cfg.WebAddr, Unmask: cfg.Unmask}
}

// agentTunnels turns settings into what the agent publishes. Passwords are
// hashed here, before they leave the process.
func agentTunnels(in []configs.Tunnel) ([]agent.Tunnel, error) {
	out := make([]agent.Tunnel, len(in))
	for i, t := range in {
		policy, err := t.Policy()
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
				TerminateAt:      t.TerminateAt,
			},
			ProxyProtocol:       t.ProxyProtocol,
			Uninspected:         t.Inspect != nil && !*t.Inspect,
			InsecureUpstreamTLS: t.UpstreamTLSVerify != nil && !*t.UpstreamTLSVerify,
		}
	}
	return out, nil
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
