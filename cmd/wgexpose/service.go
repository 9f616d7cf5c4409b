package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/service"
	"github.com/wgexpose/wgexpose/statedir"
)

// Where services of the machine keep things. An edge keeps the places that it
// has when root runs it by hand.
const (
	systemConfig     = "/etc/wgexpose"
	systemAgentState = "/var/lib/wgexpose-agent"
	systemEdgeState  = "/var/lib/wgexpose"
)

func (a *app) serviceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "service",
		Short: "Start the agent or the edge at boot",
		Long: `Make "wgexpose up" or "wgexpose edge" a service that starts at boot and again after
a failure: a systemd unit on Linux, a launchd job on macOS, a service on Windows.

Without root it is a service of your own (systemctl --user), which shares what
your config file names. With root it is one of the machine: on Linux it runs
confined, as a user of its own, and reads /etc/wgexpose.

Each command is about the agent, unless edge is given.`,
		Example: `  wgexpose service install
  wgexpose service start
  sudo wgexpose service install edge -- --domain example.com --endpoint example.com
  sudo wgexpose service start edge`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.serviceInstallCommand(),
		a.serviceActCommand("uninstall", "Stop a service and remove it",
			"Stop a service and remove it. Its state and its config file stay.", "uninstalled",
			func(ctx context.Context, s service.Service) error { return s.Uninstall(ctx) }),
		a.serviceActCommand("start", "Start a service",
			"Start an installed service, and wait until it is ready.", "started",
			func(ctx context.Context, s service.Service) error { return s.Start(ctx) }),
		a.serviceActCommand("stop", "Stop a service",
			"Stop a service. Running connections get ten seconds to end.", "stopped",
			func(ctx context.Context, s service.Service) error { return s.Stop(ctx) }),
		a.serviceActCommand("restart", "Stop and start a service",
			"Stop and start a service, after its program was replaced for instance.", "restarted",
			func(ctx context.Context, s service.Service) error { return s.Restart(ctx) }),
		a.serviceStatusCommand(),
	)
	return cmd
}

// scopeFlags say whose service is meant.
type scopeFlags struct{ user, system bool }

func (s *scopeFlags) add(flags *pflag.FlagSet) {
	flags.BoolVar(&s.user, "user", false, "a service of your own (default without root)")
	flags.BoolVar(&s.system, "system", false, "a service of the machine (default for root)")
}

// spec names a service, without what only installing needs.
func (s *scopeFlags) spec(args []string) (service.Spec, error) {
	if s.user && s.system {
		return service.Spec{}, usagef("give --user or --system, not both")
	}
	spec := service.Spec{Role: service.Agent, User: s.user || !s.system && os.Geteuid() > 0}
	if len(args) > 0 {
		spec.Role = service.Role(args[0])
	}
	if spec.Role != service.Agent && spec.Role != service.Edge {
		return spec, usagef("%q is no service; there are: %s, %s", args[0], service.Agent, service.Edge)
	}
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	if err != nil {
		return spec, fmt.Errorf("find this program: %w", err)
	}
	spec.Executable = program
	switch {
	case spec.Role == service.Edge && spec.User:
		spec.State, err = statedir.EdgeDefault()
	case spec.Role == service.Edge:
		spec.State, err = filepath.Abs(systemEdgeState)
	case spec.User:
		spec.State, err = statedir.AgentDefault()
	default:
		spec.State, err = filepath.Abs(systemAgentState)
	}
	return spec, err
}

func (a *app) serviceInstallCommand() *cobra.Command {
	var scope scopeFlags
	cmd := &cobra.Command{
		Use:   "install [agent|edge] [-- FLAG…]",
		Short: "Install the agent or the edge as a service",
		Long: `Install the agent or the edge as a service that starts at boot. It is not started
yet, so that its settings can be looked over first.

What follows -- is given to the command that the service runs: flags of "wgexpose
edge", or flags and names of tunnels of "wgexpose up". Installing once more
replaces what is there.

A service of the machine keeps its state below /var/lib: the agent in
/var/lib/wgexpose-agent, so that it has to join there; the edge in
/var/lib/wgexpose, where "sudo wgexpose edge" has it.`,
		Example: `  wgexpose service install
  wgexpose service install -- app ssh
  sudo wgexpose service install edge -- --domain example.com --endpoint example.com`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var more []string
			if dash := cmd.ArgsLenAtDash(); dash >= 0 {
				args, more = args[:dash], args[dash:]
			}
			if len(args) > 1 {
				return usagef("%q is one argument too many; what the service is to be told follows --", args[1])
			}
			spec, err := scope.spec(args)
			if err != nil {
				return err
			}
			if err := a.serviceArgs(&spec, more); err != nil {
				return err
			}
			s, err := service.Open(spec)
			if err != nil {
				return err
			}
			if err := s.Install(cmd.Context()); err != nil {
				return err
			}
			if _, err := fmt.Fprintf(a.stdout, "installed %s\n", spec.Name()); err != nil {
				return err
			}
			a.hintInstalled(spec)
			return nil
		},
	}
	scope.add(cmd.Flags())
	return cmd
}

// serviceArgs fills in the command line of the service. The settings are read
// as the service will read them, so that what is wrong is told now.
func (a *app) serviceArgs(spec *service.Spec, more []string) error {
	command, file := a.upCommand(), "wgexpose.yml"
	if spec.Role == service.Edge {
		command, file = a.edgeCommand(), "edge.yml"
	}
	flags := command.Flags()
	if err := flags.Parse(more); err != nil {
		return usagef("after --: %w", err)
	}
	if spec.Role == service.Edge && flags.NArg() > 0 {
		return usagef("after --: %q is no flag of wgexpose edge", flags.Arg(0))
	}
	// Paths are written down in full: a service starts in another directory,
	// and has no variables of this shell.
	var err error
	files := []string{filepath.Join(systemConfig, file)}
	config := flags.Lookup("config").Value.(pflag.SliceValue)
	switch {
	case flags.Changed("config"):
		files = config.GetSlice()
	case spec.User && spec.Role == service.Edge:
		files[0], err = configs.EdgeFile()
	case spec.User:
		files[0], err = configs.AgentFile()
	}
	if err != nil {
		return err
	}
	for i, name := range files {
		if files[i], err = filepath.Abs(name); err != nil {
			return err
		}
	}
	if flags.Changed("state") {
		if spec.State, err = filepath.Abs(flags.Lookup("state").Value.String()); err != nil {
			return err
		}
	}
	spec.Args = []string{command.Name(), "--state", spec.State}
	if _, err := os.Stat(files[0]); err == nil || spec.Role == service.Agent || flags.Changed("config") {
		for _, name := range files {
			spec.Args = append(spec.Args, "--config", name)
		}
		if err := flags.Set("config", files[0]); err != nil { // marks the flag
			return err
		}
		if err := config.Replace(files); err != nil {
			return err
		}
	}
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "state" {
			spec.Args = append(spec.Args, "--"+f.Name+"="+f.Value.String())
		}
	})
	spec.Args = append(spec.Args, flags.Args()...)
	if spec.Role == service.Edge {
		_, err = configs.LoadEdge(flags)
		return err
	}
	_, err = configs.LoadAgent(flags)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w\nThe service shares what this file names, so write it first; a sample: https://github.com/wgexpose/wgexpose/blob/main/configs/wgexpose.yml", err)
	}
	return err
}

// hintInstalled tells what is left to do.
func (a *app) hintInstalled(spec service.Spec) {
	sudo, role := "sudo ", ""
	if spec.User {
		sudo = ""
	}
	if spec.Role == service.Edge {
		role = " edge"
	}
	if _, err := os.Stat(filepath.Join(spec.State, "edges.json")); spec.Role == service.Agent && err != nil {
		a.hint("Join first: %swgexpose join --state %s TOKEN", sudo, spec.State)
	}
	a.hint("Start it: %swgexpose service start%s", sudo, role)
	if spec.User && service.NeedsLinger {
		a.hint("For it to run while you are logged out: sudo loginctl enable-linger $USER")
	}
}

// serviceActCommand is one verb on an installed service.
func (a *app) serviceActCommand(verb, short, long, done string, act func(context.Context, service.Service) error) *cobra.Command {
	var scope scopeFlags
	cmd := &cobra.Command{
		Use:   verb + " [agent|edge]",
		Short: short,
		Long:  long,
		Example: fmt.Sprintf(`  wgexpose service %s
  sudo wgexpose service %s edge`, verb, verb),
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := scope.spec(args)
			if err != nil {
				return err
			}
			s, err := service.Open(spec)
			if err != nil {
				return err
			}
			if err := act(cmd.Context(), s); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s %s\n", done, spec.Name())
			return err
		},
	}
	scope.add(cmd.Flags())
	return cmd
}

func (a *app) serviceStatusCommand() *cobra.Command {
	var scope scopeFlags
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "status [agent|edge]",
		Short: "Show the state of a service",
		Long: `Show whether a service is installed, starts at boot and runs, and what it says of
itself. What it shares is told by "wgexpose status" and "wgexpose edge tunnels".`,
		Example: `  wgexpose service status
  sudo wgexpose service status edge --json`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			spec, err := scope.spec(args)
			if err != nil {
				return err
			}
			s, err := service.Open(spec)
			if err != nil {
				return err
			}
			st, err := s.Status(cmd.Context())
			if err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(st)
			}
			_, err = fmt.Fprintln(a.stdout, serviceLine(st))
			return err
		},
	}
	scope.add(cmd.Flags())
	jsonFlag(cmd, &asJSON)
	return cmd
}

func serviceLine(st service.Status) string {
	if !st.Installed {
		return st.Name + ": not installed"
	}
	line := []string{st.Name + ": " + st.State}
	if st.Detail != "" {
		line = append(line, st.Detail)
	}
	if st.Enabled {
		line = append(line, "starts by itself")
	} else {
		line = append(line, "does not start by itself")
	}
	return printable(strings.Join(line, ", "))
}
