package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
)

func (a *app) diagnoseCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "diagnose",
		Short: "Look at what is between this machine and its edge",
		Long: `Look at what is between this machine and its edge, and say what is wrong and what
to do: the config file, names, TLS and the proxy in front of it, the clock, UDP to
each port of the edge, how large packets may be, address translation, and socket
buffers.

While another command shares something, UDP is left alone, since the agent's key
works in one place at a time, and that command's links are told instead.`,
		Example: `  wgexpose diagnose
  wgexpose diagnose --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, mistakes, err := configs.SalvageAgent(cmd.Flags())
			if err != nil {
				return err
			}
			failed, all := 0, 0
			tell := func(c agent.Check) {
				all++
				if c.Result == agent.CheckFail {
					failed++
				}
				if asJSON {
					_ = a.printJSON(c) // nobody may be reading, which is no reason to stop looking
					return
				}
				fmt.Fprintln(a.stdout, checkLine(c))
			}
			for _, p := range mistakes {
				tell(agent.Check{Check: "config", Result: agent.CheckFail, Found: p.String(),
					Advice: "correct it, and look again with \"wgexpose config check\": nothing can be shared before; what follows is without it"})
			}
			dir, err := joinedState(cfg.State)
			if err != nil {
				return err
			}
			ctx, stop := drainOnSignal(cmd.Context())
			defer stop()
			err = agent.Diagnose(ctx, dir, agent.DiagnoseOptions{
				Reach:  agent.Reach{Transport: cfg.Transport, Proxy: cfg.Proxy, MTU: cfg.MTU},
				Logger: a.logger(cfg.LogLevel, cfg.LogFormat),
			}, tell)
			if err != nil {
				return err
			}
			if failed > 0 {
				return fmt.Errorf("diagnose: %d of %d checks failed", failed, all)
			}
			return nil
		},
	}
	configs.AgentFlags(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	return cmd
}

// checkLine is one thing for a person to read, with what to do below it.
func checkLine(c agent.Check) string {
	what := c.Check
	if c.Target != "" {
		what += " " + c.Target
	}
	line := fmt.Sprintf("%-4s  %s: %s", c.Result, printable(what), printable(c.Found))
	if c.Advice != "" {
		line += "\n      -> " + printable(c.Advice)
	}
	return line
}
