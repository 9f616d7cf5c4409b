package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/statedir"
)

func (a *app) caCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Print the root certificate of the internal CA",
		Long: `Print the root certificate of the edge's own certificate authority (--tls
internal) as PEM. Clients that trust it accept the host names of the tunnels; it
can vouch for the edge's domain alone.`,
		Example: `  wgexpose edge ca > ca.pem
  curl --cacert ca.pem https://app.example.com/`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			state, err := configs.LoadEdgeState(cmd.Flags())
			if err != nil {
				return err
			}
			dir, err := statedir.Open(state)
			if err != nil {
				return err
			}
			pem, err := edge.CA(dir)
			if errors.Is(err, certs.ErrNoRoot) {
				return fmt.Errorf("there is no internal CA in %s: it is made when the edge starts with --tls internal", dir)
			}
			if err != nil {
				return err
			}
			_, err = a.stdout.Write(pem)
			return err
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	return cmd
}
