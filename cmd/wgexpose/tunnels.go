package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
)

func (a *app) tunnelsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "tunnels",
		Short: "List the tunnels",
		Long:  "List the tunnels that are served, and the names and ports that are reserved for an agent.",
		Example: `  wgexpose edge tunnels
  wgexpose edge tunnels --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				tunnels, err := admin.Tunnels(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printAll(a, tunnels)
				}
				var rows [][]string
				for _, t := range tunnels {
					rows = append(rows, []string{t.Name, string(t.Kind), t.State, t.PublicURL, t.Agent, t.Upstream, t.Reason})
				}
				return a.table([]string{"NAME", "KIND", "STATE", "PUBLIC", "AGENT", "UPSTREAM", "REASON"}, rows)
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) releaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "release NAME",
		Short: "Free a name or port that an agent holds",
		Long: `Free the name, host name or TCP port of a tunnel that is not being served, so that
another agent can have it.`,
		Example: `  wgexpose edge release app
  wgexpose edge release app.example.com
  wgexpose edge release 20022`,
		Args:              exactly("NAME"),
		ValidArgsFunction: completeAtEdge(edgeTunnels),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				if err := admin.Release(ctx, args[0]); err != nil {
					return err
				}
				a.hint("released %s", args[0])
				return nil
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	return cmd
}
