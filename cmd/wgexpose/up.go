package main

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
)

func (a *app) upCommand() *cobra.Command {
	var out output
	var all bool
	cmd := &cobra.Command{
		Use:     "up [NAME…]",
		Aliases: []string{"start"},
		Short:   "Share the tunnels of the config file",
		Long: `Share all tunnels that the config file names, or only those given, until Ctrl-C.
A tunnel that the edge refuses is shown with the reason, and the others go on.

When the file changes, and on SIGHUP, tunnels that were added, removed or changed
take effect, and the others keep their connections. Connections of a tunnel that was
removed, or leads elsewhere now, have 10 s to finish. A file with a mistake changes
nothing. Other settings take effect at the next start.`,
		Example: `  wgexpose up
  wgexpose up app ssh
  wgexpose up --config ./wgexpose.yml --json`,
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			cfg, err := configs.LoadAgent(cmd.Flags())
			if err != nil {
				return nil, cobra.ShellCompDirectiveError | cobra.ShellCompDirectiveNoFileComp
			}
			given := func(name string) bool { return slices.Contains(args, name) }
			return slices.DeleteFunc(names(cfg.Tunnels), given), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return usagef("give names or --all, not both")
			}
			return a.shareFrom(cmd, out, func() (configs.Agent, []configs.Tunnel, error) {
				cfg, err := configs.LoadAgent(cmd.Flags())
				if err != nil {
					return cfg, nil, err
				}
				if len(cfg.Tunnels) == 0 {
					return cfg, nil, noTunnels(cfg)
				}
				tunnels, err := pick(cfg.Tunnels, args)
				return cfg, tunnels, err
			}, true)
		},
	}
	configs.AgentFlags(cmd.Flags())
	cmd.Flags().BoolVar(&all, "all", false, "share all tunnels, as without names")
	out.flags(cmd)
	return cmd
}

// noTunnels says what to do about a file that shares nothing.
func noTunnels(cfg configs.Agent) error {
	if _, err := os.Stat(cfg.File); errors.Is(err, os.ErrNotExist) {
		return wrongf("there is no %s: write one that names tunnels, or share one without a file: wgexpose http 8089", cfg.File)
	}
	return wrongf("%s names no tunnels: add some under tunnels:, or share one without a file: wgexpose http 8089", cfg.File)
}

// pick returns the tunnels with the given names, or all when there are none.
func pick(all []configs.Tunnel, wanted []string) ([]configs.Tunnel, error) {
	if len(wanted) == 0 {
		return all, nil
	}
	byName := make(map[string]configs.Tunnel, len(all))
	for _, t := range all {
		byName[t.Name] = t
	}
	var picked []configs.Tunnel
	seen := make(map[string]bool)
	for _, name := range wanted {
		t, ok := byName[name]
		if !ok {
			return nil, usagef("no tunnel %q in the config file; there are: %s", name, strings.Join(names(all), ", "))
		}
		if !seen[name] {
			picked = append(picked, t)
		}
		seen[name] = true
	}
	return picked, nil
}

func names(tunnels []configs.Tunnel) []string {
	out := make([]string, len(tunnels))
	for i, t := range tunnels {
		out[i] = t.Name
	}
	return out
}
