package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/statedir"
)

// withAdmin opens the edge of the command's state directory, running or not.
func (a *app) withAdmin(cmd *cobra.Command, do func(ctx context.Context, admin edge.Admin) error) error {
	state, err := configs.LoadEdgeState(cmd.Flags())
	if err != nil {
		return err
	}
	if _, err := os.Stat(state); errors.Is(err, fs.ErrNotExist) { // Open would make it
		return fmt.Errorf("there is no edge in %s yet: start it first, with wgexpose edge, or name its state directory with --state", state)
	}
	dir, err := statedir.Open(state)
	if err != nil {
		return err
	}
	ctx, stop := drainOnSignal(cmd.Context())
	defer stop()
	admin, err := edge.OpenAdmin(ctx, dir)
	if err != nil {
		return err
	}
	err = do(ctx, admin)
	if closed := admin.Close(); err == nil {
		err = closed
	}
	return err
}

func (a *app) inviteCommand() *cobra.Command {
	var options edge.InviteOptions
	var ttl string
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "invite",
		Short: "Make an invite, with which an agent joins",
		Long: `Make an invite and print its token alone on stdout. Give the token to "wgexpose
join" on the private machine. It is a secret until it is used up or expired.

Agents may have any free name under the edge's domain. Of other domains they may
have those that --domains allows, once the names' DNS records lead to the edge.`,
		Example: `  wgexpose edge invite --name laptop
  wgexpose edge invite --uses 10 --ttl 1h
  wgexpose edge invite --domains 'shop.customer.org,*.customer.net'
  wgexpose edge invite | ssh laptop wgexpose join -`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if options.Uses < 1 {
				return usagef("--uses must be at least 1")
			}
			if cmd.Flags().Changed("domains") && len(options.Domains) == 0 {
				return usagef("--domains is empty: name some, or leave it out")
			}
			var err error
			if options.TTL, err = time.ParseDuration(ttl); err != nil || options.TTL <= 0 {
				return usagef("--ttl: %q is no time; allowed: a number with a unit, such as 30m or 72h", ttl)
			}
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				invite, err := admin.Invite(ctx, options)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(invite)
				}
				if invite.Warning != "" {
					a.hint("WARNING: %s", invite.Warning)
				}
				a.hint("On the private machine, until %s: wgexpose join TOKEN", invite.Expires.Local().Format(time.RFC1123))
				_, err = fmt.Fprintln(a.stdout, invite.Token)
				return err
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	cmd.Flags().StringVar(&options.Name, "name", "", "`NAME` of the agent (default: it chooses)")
	cmd.Flags().IntVar(&options.Uses, "uses", 1, "`N` agents may join with it")
	cmd.Flags().StringVar(&ttl, "ttl", "24h", "`TIME` until it expires, such as 30m or 72h")
	cmd.Flags().StringSliceVar(&options.Domains, "domains", nil, "`NAMES` outside the edge's domain that its agents may have, with commas between: shop.customer.org, or *.customer.org for all names below it")
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) invitesCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "invites",
		Short: "List the invites",
		Long:  "List the invites that have not expired, with the agents that joined with each.",
		Example: `  wgexpose edge invites
  wgexpose edge invites revoke q3k5wz7a2m`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				invites, err := admin.Invites(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printAll(a, invites)
				}
				var rows [][]string
				now := time.Now()
				for _, i := range invites {
					expires := "expired"
					if left := i.Expires.Sub(now); left > 0 {
						expires = "in " + short(left)
					}
					rows = append(rows, []string{i.ID, i.Name, i.State, strconv.Itoa(i.Used) + " of " + strconv.Itoa(i.Uses), list(i.Agents), list(i.Domains), expires})
				}
				return a.table([]string{"ID", "NAME", "STATE", "USED", "AGENTS", "DOMAINS", "EXPIRES"}, rows)
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	cmd.AddCommand(a.revokeInviteCommand())
	return cmd
}

func (a *app) revokeInviteCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "revoke ID",
		Short:   "Withdraw an invite",
		Long:    "Withdraw an invite, so that nobody can join with it any more. Agents that joined with it stay.",
		Example: "  wgexpose edge invites revoke q3k5wz7a2m",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				if err := admin.RevokeInvite(ctx, args[0]); err != nil {
					return err
				}
				a.hint("revoked invite %s", args[0])
				return nil
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	return cmd
}
