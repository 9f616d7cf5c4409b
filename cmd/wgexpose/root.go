package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/edge"
	"github.com/wgexpose/wgexpose/statedir"
)

// The exit codes, which scripts and service managers branch on. exitCode has the
// rule for what comes from where.
const (
	exitOK      = 0 // done, or drained after a signal
	exitFailure = 1
	exitUsage   = 2 // what was given is wrong: an argument, flag, variable or config file, or a file that one of them names
	exitRefused = 3 // the edge said no; trying again will not help
)

// exitHelp is the same for users.
const exitHelp = `Exit codes: 0 done, or ended by a signal; 1 failed; 2 an argument, flag, variable or
config file is wrong, or a file that one of them names; 3 refused by the edge.`

// app is what all commands share.
type app struct {
	stdin  io.Reader
	stdout io.Writer // results and events
	stderr io.Writer // logs, hints and errors

	started bool // a command has begun, so that its errors are no longer about usage
}

// usageError marks an error of what a command was given that the command finds itself.
type usageError struct {
	err  error
	help bool // --help tells more
}

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// usagef is an error of the command line, against which its help helps.
func usagef(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...), true}
}

// wrong marks an error of what was given: a token that is none, a file that is not there.
func wrong(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err, false}
}

func wrongf(format string, args ...any) error { return wrong(fmt.Errorf(format, args...)) }

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := a.rootCommand()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	code := a.exitCode(err)
	fmt.Fprintf(stderr, "wgexpose: %v\n", err)
	if code == exitUsage && a.helps(err) {
		fmt.Fprintf(stderr, "Run '%s --help' for help.\n", cmd.CommandPath())
	}
	return code
}

// helps tells whether --help helps against an error of what was given.
func (a *app) helps(err error) bool {
	var usage usageError
	var settings *configs.Error
	var admin *edge.Refusal
	switch {
	case errors.As(err, &usage):
		return usage.help
	case errors.As(err, &settings):
		return settings.Usage()
	}
	return !a.started || errors.As(err, &admin)
}

// exitCode is the rule: what was given and must be changed before another try is
// exitUsage, wherever that was found out; a final no of the edge is exitRefused; all
// else, which may go well the next time, is exitFailure.
func (a *app) exitCode(err error) int {
	var usage usageError
	var settings *configs.Error
	var refused *control.Error
	var admin *edge.Refusal
	var certificate *certs.FileError
	var state *statedir.Error
	switch {
	case !a.started, errors.As(err, &usage), errors.As(err, &settings), errors.As(err, &certificate):
		return exitUsage
	case errors.As(err, &state) && errors.Is(err, syscall.ENOTDIR): // --state is a file, or leads through one
		return exitUsage
	case errors.As(err, &admin) && admin.Code == edge.RefusedBadRequest:
		return exitUsage
	case errors.As(err, &refused) && final(refused):
		return exitRefused
	}
	return exitFailure
}

// final tells whether the edge's no will be the same the next time. Another command
// on this machine has its say too, with agent.CodeNameInUse.
func final(e *control.Error) bool { return !e.Passing() && e.Code != agent.CodeNameInUse }

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "wgexpose",
		Short: "Share private services through a WireGuard overlay in user space",
		Long: `wgexpose puts a private service on the public internet through a WireGuard
overlay that runs in user space: no root on the private machine, no TUN device,
no kernel module.

On a machine with a public address, run an edge:

  wgexpose edge --domain example.com
  wgexpose edge invite

On the private machine, join with the invite and share:

  wgexpose join wgx1_…
  wgexpose http 8089 --name app
  wgexpose tcp 22

To see all of it on one machine: wgexpose demo

` + exitHelp,
		Example: `  wgexpose demo
  wgexpose http 8089 --name app
  wgexpose tcp 22 --port 20022`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Version:       buildVersion(),
		Args:          cobra.NoArgs,
		RunE:          func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.CompletionOptions.HiddenDefaultCmd = false

	root.AddGroup(
		&cobra.Group{ID: groupAgent, Title: "On the private machine:"},
		&cobra.Group{ID: groupEdge, Title: "On the public machine:"},
		&cobra.Group{ID: groupOther, Title: "Other:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupAgent, a.joinCommand(), a.httpCommand(), a.serveCommand(), a.tcpCommand(), a.tlsCommand(), a.upCommand(), a.statusCommand(), a.diagnoseCommand(), a.ownCACommand())
	add(groupEdge, a.edgeCommand())
	add(groupOther, a.configCommand(), a.importCommand(), a.serviceCommand(), a.demoCommand(), a.manCommand(), a.versionCommand())
	root.SetHelpCommandGroupID(groupOther)
	root.SetCompletionCommandGroupID(groupOther)
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	addExamples(root)
	completeFlags(root)
	a.markStart(root)
	return root
}

const (
	groupAgent = "agent"
	groupEdge  = "edge"
	groupOther = "other"
)

// addExamples makes the commands that cobra adds like all others.
func addExamples(root *cobra.Command) {
	for _, c := range root.Commands() {
		switch c.Name() {
		case "help":
			c.Example = "  wgexpose help edge invite"
			c.Args = func(_ *cobra.Command, args []string) error {
				found, rest, err := root.Find(args)
				if err == nil && len(rest) > 0 {
					err = fmt.Errorf("unknown command %q for %q", rest[0], found.CommandPath())
				}
				return err
			}
		case "completion":
			c.Example = "  source <(wgexpose completion bash)"
			c.RunE = func(cmd *cobra.Command, args []string) error { return cmd.Help() } // and an unknown shell is an error
			for _, shell := range c.Commands() {
				shell.Example = "  wgexpose completion " + shell.Name()
			}
		}
	}
}

// exactly wants the named arguments, no more and no less.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < len(names):
			return fmt.Errorf("%s is missing", strings.Join(names[len(args):], " "))
		case len(args) > len(names):
			return fmt.Errorf("%q is one argument too many: %s", args[len(names)], cmd.UseLine())
		}
		return nil
	}
}

// atMost wants no more than n arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > n {
			return fmt.Errorf("%q is one argument too many: %s", args[n], cmd.UseLine())
		}
		return nil
	}
}

// markStart notes when the command itself begins: everything before, such as
// an unknown flag or a missing argument, is wrong usage.
func (a *app) markStart(cmd *cobra.Command) {
	if inner := cmd.RunE; inner != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.started = true
			return inner(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		a.markStart(c)
	}
}

// logger writes to stderr, so that stdout has results alone.
func (a *app) logger(level slog.Level, format configs.LogFormat) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == configs.LogJSON {
		return slog.New(slog.NewJSONHandler(a.stderr, options))
	}
	return slog.New(slog.NewTextHandler(a.stderr, options))
}

// hint tells a person what to do next, beside the result on stdout.
func (a *app) hint(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

// isTerminal tells whether a person types at f.
func isTerminal(f io.Reader) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}
