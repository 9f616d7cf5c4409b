package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/statedir"
)

// joinedState opens the state directory of an agent, and makes none.
func joinedState(state string) (*statedir.Dir, error) {
	if _, err := os.Stat(state); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("%w: there is no state directory %s; get a token with \"wgexpose edge invite\" on the edge, and run \"wgexpose join TOKEN\" here", agent.ErrNotJoined, state)
	}
	return statedir.Open(state)
}

func (a *app) statusCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show this agent, its links and its tunnels",
		Long: `Show which edge this agent has joined, and while something is shared, how its links
and tunnels are and where its requests are shown.

The exit code is 3 when the edge has revoked this agent, and 1 when something else keeps
the next command from starting. It is 0 when nothing is shared, and when a link or a
tunnel is down: --json tells.`,
		Example: `  wgexpose status
  wgexpose status --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := configs.LoadAgent(cmd.Flags())
			if err != nil {
				return err
			}
			dir, err := joinedState(cfg.State)
			if err != nil {
				return err
			}
			ctx, stop := drainOnSignal(cmd.Context())
			defer stop()
			status, err := agent.ReadStatus(ctx, dir)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(status)
			} else {
				err = a.printStatus(status, time.Now())
			}
			if err != nil {
				return err
			}
			return status.Err()
		},
	}
	configs.AgentFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	return cmd
}

func (a *app) printStatus(s agent.Status, now time.Time) error {
	if _, err := fmt.Fprintf(a.stdout, "agent %s at %s\n", printable(s.Agent), printable(s.Domain)); err != nil {
		return err
	}
	if s.Err() != nil && !s.Running {
		return nil // which says why
	}
	if !s.Running {
		_, err := fmt.Fprintln(a.stdout, "not running: nothing is shared (wgexpose http, tcp or up)")
		return err
	}
	var links [][]string
	for _, l := range s.Links {
		mtu := ""
		if l.MTU != 0 {
			mtu = strconv.Itoa(l.MTU)
		}
		links = append(links, []string{l.Edge, l.State, short(now.Sub(l.Since)), l.Transport, mtu, latency(l.Latency), l.Reason})
	}
	if err := a.section([]string{"EDGE", "LINK", "FOR", "TRANSPORT", "MTU", "LATENCY", "REASON"}, links); err != nil {
		return err
	}
	var tunnels [][]string
	for _, t := range s.Tunnels {
		reason := ""
		if t.Error != nil {
			reason = t.Error.Message
		}
		tunnels = append(tunnels, []string{t.Name, string(t.Kind), t.State, t.PublicURL, t.Upstream, strconv.Itoa(t.Connections), strconv.FormatInt(t.Conns.Count, 10), reason})
	}
	if s.Inspector != "" {
		if _, err := fmt.Fprintf(a.stdout, "\ninspector %s\n", s.Inspector); err != nil {
			return err
		}
	}
	return a.section([]string{"TUNNEL", "KIND", "STATE", "PUBLIC", "UPSTREAM", "OPEN", "CONNECTIONS", "REASON"}, tunnels)
}

// latency is that of a link in words; it is unknown until it was measured.
func latency(ms float64) string {
	if ms == 0 {
		return ""
	}
	return strconv.FormatFloat(ms, 'f', 1, 64) + " ms"
}

// section is a table under an empty line, or nothing.
func (a *app) section(heading []string, rows [][]string) error {
	if len(rows) == 0 {
		return nil
	}
	if _, err := fmt.Fprintln(a.stdout); err != nil {
		return err
	}
	return a.table(heading, rows)
}
