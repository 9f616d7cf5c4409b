package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
)

func (a *app) certsCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "certs",
		Short: "List the certificates",
		Long: `List the certificates that visitors see, when they expire, and why the last
attempt to get or renew one failed, if it did. With the edge stopped, those that it
has stored, and own ones in the files that it had at its last start.

Certificates are renewed when a third of their time is left. One whose renewal goes
wrong is failing: that is shown here and in "wgexpose edge status", logged at each
attempt, and told by the metrics (wgexpose edge --metrics).`,
		Example: `  wgexpose edge certs
  wgexpose edge certs --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				certificates, err := admin.Certs(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return printAll(a, certificates)
				}
				var rows [][]string
				now := time.Now()
				for _, c := range certificates {
					expires := ""
					if left := c.Until.Sub(now); left > 0 {
						expires = "in " + short(left)
					} else if !c.Until.IsZero() {
						expires = ago(now, c.Until)
					}
					from := c.Source
					if c.File != "" {
						from = c.File
					}
					rows = append(rows, []string{c.Name, c.State, expires, c.Issuer, from, c.Error})
				}
				return a.table([]string{"NAME", "STATE", "EXPIRES", "ISSUER", "FROM", "ERROR"}, rows)
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	return cmd
}
