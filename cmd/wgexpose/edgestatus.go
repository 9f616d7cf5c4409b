package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/edge"
)

func (a *app) edgeStatusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the edge at a glance",
		Long: `Show whether the edge runs, where it listens, how many agents and tunnels are up,
what visitors do, and what needs attention: certificates that are not renewed, ports
that cannot be opened. With the edge stopped, what it has in its database.`,
		Example: `  wgexpose edge status
  wgexpose edge status --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withAdmin(cmd, func(ctx context.Context, admin edge.Admin) error {
				status, err := admin.Status(ctx)
				if err != nil {
					return err
				}
				if asJSON {
					return a.printJSON(status)
				}
				return a.printEdgeStatus(status, time.Now())
			})
		},
	}
	configs.EdgeStateFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) printEdgeStatus(s edge.Status, now time.Time) error {
	var b strings.Builder
	if s.Running {
		fmt.Fprintf(&b, "edge for %s is running: version %s, for %s\n", s.Domain, s.Version, short(now.Sub(s.Started)))
	} else {
		fmt.Fprintf(&b, "edge for %s is not running\n", s.Domain)
	}
	line := func(label, format string, args ...any) {
		fmt.Fprintf(&b, "  %-13s "+format+"\n", append([]any{label}, args...)...)
	}
	for _, l := range s.Listeners {
		address := l.Address
		switch {
		case l.UDP:
			address = withUDP(address)
		case l.Name == "metrics":
			address = metricsURL(address)
		}
		line(l.Name, "%s", address)
	}
	if s.Endpoint != "" {
		line("endpoint", "%s", s.Endpoint)
	}
	if s.Running {
		line("agents", "%d up, %d away", s.Agents.Up, s.Agents.Total-s.Agents.Up)
		line("tunnels", "%d up, %d away, %d with an error, %d reserved", s.Tunnels.Up, s.Tunnels.Away, s.Tunnels.Error, s.Tunnels.Reserved)
	} else {
		line("agents", "%d", s.Agents.Total)
		line("tunnels", "%d, and %d reserved", s.Tunnels.Total-s.Tunnels.Reserved, s.Tunnels.Reserved)
	}
	line("open invites", "%d", s.Invites)
	for _, v := range s.Visitors {
		carried := ""
		if v.Way != "tcp" && v.Way != "tls" {
			carried = fmt.Sprintf(", %d requests under way", v.Requests)
		}
		line("over "+v.Way, "%d connections, %d of them open%s", v.Connections, v.Open, carried)
	}
	if s.Streams > 0 {
		line("streams", "%d agents' connections over TLS", s.Streams)
	}
	line("certificates", "%d, %d of them with trouble", s.Certificates, len(s.Trouble))
	for _, c := range s.Trouble {
		fmt.Fprintf(&b, "\nCERTIFICATE: %s\n", printable(certificateTrouble(c, now)))
	}
	for _, w := range s.Warnings {
		fmt.Fprintf(&b, "\nWARNING: %s\n", printable(w))
	}
	_, err := fmt.Fprint(a.stdout, b.String())
	return err
}

// certificateTrouble says what is wrong with a certificate.
func certificateTrouble(c certs.Status, now time.Time) string {
	said := c.Name + " is " + c.State
	if c.File != "" {
		said += ", " + c.File
	}
	switch left := c.Until.Sub(now); {
	case c.Until.IsZero():
		said += ", and there is none"
	case left > 0:
		said += ", and expires in " + short(left)
	default:
		said += ", and has expired " + ago(now, c.Until)
	}
	if c.Error != "" {
		said += ": " + c.Error
	}
	return said
}
