package main

import (
	"context"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/statedir"
)

// completeTime is how long a user who presses Tab waits for names.
const completeTime = time.Second

// completeFlags offers the values of flags that have few, and the names of tunnels
// that this machine has for --name.
func completeFlags(cmd *cobra.Command) {
	offer := func(flag string, values cobra.CompletionFunc) {
		if err := cmd.RegisterFlagCompletionFunc(flag, values); err != nil {
			panic(err) // the flag is there, and nobody else offers anything
		}
	}
	for flag, values := range map[string][]string{
		"transport":         {agent.TransportAuto, agent.TransportUDP, agent.TransportTLS},
		"log-level":         {"debug", "info", "warn", "error"},
		"log-format":        {string(configs.LogText), string(configs.LogJSON)},
		"proxy-protocol":    {"v1", "v2"},
		"terminate-at":      {"edge", "agent", "upstream"},
		"upstream-protocol": {"http1", "http2"},
		"tls":               {"acme", "internal", "off"},
	} {
		if flag == "terminate-at" && cmd.Name() == "http" {
			values = values[:2] // an upstream that ends TLS is for tls tunnels
		}
		if cmd.Flags().Lookup(flag) != nil {
			offer(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
		}
	}
	if cmd.Flags().Lookup("name") != nil && cmd.Flags().Lookup("plain") != nil {
		offer("name", completeTunnels)
	}
	for _, c := range cmd.Commands() {
		completeFlags(c)
	}
}

// present opens a state directory that is there; completing makes none.
func present(state string) (*statedir.Dir, error) {
	if _, err := os.Stat(state); err != nil {
		return nil, err
	}
	return statedir.Open(state)
}

// completeTunnels offers the tunnels of the config file, and those that are
// served.
func completeTunnels(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	cfg, err := configs.LoadAgent(cmd.Flags())
	if err != nil {
		return nil, none
	}
	out := names(cfg.Tunnels)
	dir, err := present(cfg.State)
	if err != nil {
		return out, none
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
	defer cancel()
	st, err := agent.ReadStatus(ctx, dir)
	if err != nil {
		return out, none
	}
	for _, t := range st.Tunnels {
		if !slices.Contains(out, t.Name) { // it may be one of the file's
			out = append(out, t.Name)
		}
	}
	return out, none
}

// completeAtEdge offers what the edge of this machine has.
func completeAtEdge(list func(context.Context, edge.Admin) ([]string, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cfg, err := configs.LoadEdge(cmd.Flags())
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		dir, err := present(cfg.State)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), completeTime)
		defer cancel()
		admin, err := edge.OpenAdmin(ctx, dir)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		defer admin.Close() // nothing was written
		out, err := list(ctx, admin)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// edgeTunnels are what release takes: names, and addresses of those that share one.
func edgeTunnels(ctx context.Context, admin edge.Admin) ([]string, error) {
	rows, err := admin.Tunnels(ctx)
	shared := make(map[string]int)
	for _, t := range rows {
		shared[t.Name]++
	}
	var out []string
	for _, t := range rows {
		if shared[t.Name] > 1 {
			out = append(out, t.PublicURL)
		} else {
			out = append(out, t.Name)
		}
	}
	return out, err
}

func edgeAgents(ctx context.Context, admin edge.Admin) ([]string, error) {
	rows, err := admin.Agents(ctx)
	var out []string
	for _, a := range rows {
		out = append(out, a.Name)
	}
	return out, err
}
