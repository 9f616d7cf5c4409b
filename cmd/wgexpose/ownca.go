package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/statedir"
)

func (a *app) ownCACommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Print the root certificate of this agent's own CA",
		Long: `Print the root certificate of the agent's own certificate authority (--certificates
internal) as PEM. Clients that trust it accept the tunnels whose TLS ends at this
agent (--terminate-at agent); it can vouch for names under the edge's domain alone.`,
		Example: `  wgexpose ca > ca.pem
  curl --cacert ca.pem https://app.example.com/`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := configs.LoadAgent(cmd.Flags())
			if err != nil {
				return err
			}
			dir, err := statedir.Open(cfg.State)
			if err != nil {
				return err
			}
			pem, err := agent.CA(dir)
			if errors.Is(err, certs.ErrNoRoot) {
				return fmt.Errorf("there is no internal CA in %s: it is made when a tunnel with --terminate-at agent is shared with --certificates internal", dir)
			}
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(pem)
			return err
		},
	}
	configs.AgentFlags(cmd.Flags())
	return cmd
}
