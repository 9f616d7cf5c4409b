package main

import (
	"context"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
)

func (a *app) agentsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "agents",
		Short: "List the agents",
		Long:  "List the agents that joined, and with the edge running whether each is connected.",
		Example: `  wgexpose edge agents
  wgexpose edge agents --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				agents, err := admin.Agents(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printAll(a, agents)
				}
				var rows [][]string
				now := time.Now()
				for _, g := range agents {
					state := g.State
					if !g.Joined {
						state = "never connected"
					} else if state != "" && !g.Since.IsZero() {
						state += " for " + short(now.Sub(g.Since))
					}
					rows = append(rows, []string{g.Name, state, strconv.Itoa(g.Tunnels), g.Endpoint, g.Version, g.Platform, ago(now, g.Created)})
				}
				return a.table([]string{"NAME", "STATE", "TUNNELS", "ENDPOINT", "VERSION", "PLATFORM", "JOINED"}, rows)
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) revokeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke AGENT",
		Short: "Shut an agent out",
		Long: `Shut an agent out for good: its connections end at once, its key is no longer
known, and its names and ports are free again. To let it back in, invite it anew.`,
		Example:           "  wgexpose edge revoke laptop",
		Args:              exactly("AGENT"),
		ValidArgsFunction: completeAtEdge(edgeAgents),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				if err := admin.Revoke(ctx, args[0]); err != nil {
					return err
				}
				a.hint("revoked agent %s", args[0])
				return nil
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	return cmd
}
