package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/service"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show, check or edit the config file",
		Long: `Show, check or edit the config file of this agent, or, with edge as an argument, that
of an edge.

The file is read from a standard place ("wgexpose config path") or named by --config,
which can be repeated: later files win, key by key, also within a tunnel, and the
tunnels of all of them count; "key: null" takes away what the files before say of the key.
${NAME} in a value stands for a variable of the environment.`,
		Example: `  wgexpose config edit
  wgexpose config check --config wgexpose.yml --config more.yml
  wgexpose config show edge`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.configPart("check", "Say what is wrong with the config file",
			`Read the config file as the agent or the edge would, and say what is wrong with
it, with file, line and key. Nothing is started or changed.`, a.configCheck),
		a.configPart("edit", "Edit the config file",
			`Open the config file in $VISUAL or $EDITOR. A copy is edited, and takes the place of
the file only when there is nothing wrong with it. A JSON Schema is written beside
the file, with which editors complete it.`, a.configEdit),
		a.configPart("show", "Print the settings that are in force",
			`Print each setting with the place that it comes from: a flag, a variable, a file or
the default. Files are merged, variables are in their places, passwords are hidden.`, a.configShow),
		a.configPart("path", "Print which files are read",
			`Print the config files that are read, one on each line. The standard one need not
be there.`, a.configPath),
		a.configPart("schema", "Print the JSON Schema of the config file",
			`Print the JSON Schema of the config file, for editors to complete and check it:

  wgexpose config schema > wgexpose.schema.json

beside wgexpose.yml, whose first line names it.`, a.configSchema),
		a.authtokenCommand(),
	)
	return cmd
}

// configTarget is whose file is meant, and its flags.
type configTarget struct {
	role  service.Role
	flags *pflag.FlagSet
}

func (t configTarget) edge() bool { return t.role == service.Edge }

// files are those that are read, of which the first may be missing.
func (t configTarget) files() ([]string, error) {
	if files := t.flags.Lookup("config").Value.(pflag.SliceValue).GetSlice(); len(files) > 0 {
		return files, nil
	}
	if files := filepath.SplitList(os.Getenv("WGEXPOSE_CONFIG")); len(files) > 0 {
		return files, nil
	}
	file, err := configs.AgentFile()
	if t.edge() {
		file, err = configs.EdgeFile()
	}
	return []string{file}, err
}

// check reads the settings.
func (t configTarget) check() error {
	if t.edge() {
		_, err := configs.LoadEdge(t.flags)
		return err
	}
	_, err := configs.LoadAgent(t.flags)
	return err
}

func (a *app) configPart(verb, short, long string, do func(*cobra.Command, configTarget) error) *cobra.Command {
	cmd := &cobra.Command{
		Use:   verb + " [agent|edge]",
		Short: short,
		Long:  long,
		Example: fmt.Sprintf(`  wgexpose config %s
  wgexpose config %s edge`, verb, verb),
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t := configTarget{role: service.Agent, flags: cmd.Flags()}
			if len(args) > 0 {
				t.role = service.Role(args[0])
			}
			if t.role != service.Agent && t.role != service.Edge {
				return usagef("%q has no config file; there are: %s, %s", args[0], service.Agent, service.Edge)
			}
			return do(cmd, t)
		},
	}
	configs.ConfigFlag(cmd.Flags())
	return cmd
}

func (a *app) configCheck(_ *cobra.Command, t configTarget) error {
	files, err := t.files()
	if err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return err
	}
	for _, file := range files {
		state := "good"
		if _, err := os.Stat(file); errors.Is(err, os.ErrNotExist) {
			state = "not there; nothing is set by it"
		}
		if _, err := fmt.Fprintf(a.stdout, "%s: %s\n", file, state); err != nil {
			return err
		}
	}
	return nil
}

func (a *app) configShow(_ *cobra.Command, t configTarget) error {
	show := configs.ShowAgent
	if t.edge() {
		show = configs.ShowEdge
	}
	text, err := show(t.flags)
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(text)
	return err
}

func (a *app) configPath(_ *cobra.Command, t configTarget) error {
	files, err := t.files()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(a.stdout, strings.Join(files, "\n"))
	return err
}

func (t configTarget) schema() ([]byte, error) {
	if t.edge() {
		return configs.EdgeSchema()
	}
	return configs.AgentSchema()
}

func (a *app) configSchema(_ *cobra.Command, t configTarget) error {
	text, err := t.schema()
	if err != nil {
		return err
	}
	_, err = a.stdout.Write(text)
	return err
}

// start is the text of a config file that is not there yet.
func (t configTarget) start(file string) string {
	text := configs.SchemaLine(file) + "# All keys: wgexpose config schema, or the samples at\n" +
		"# https://github.com/wgexpose/wgexpose/tree/main/configs\n"
	if t.edge() {
		return text + "#domain: example.com\n#endpoint: example.com\n"
	}
	return text + "tunnels:\n  #app: {kind: http, upstream: 8089}\n  #ssh: {kind: tcp, upstream: 22, port: 20022}\n"
}

func (a *app) configEdit(cmd *cobra.Command, t configTarget) error {
	files, err := t.files()
	if err != nil {
		return err
	}
	if len(files) > 1 {
		return usagef("name one file to edit with --config, not %d", len(files))
	}
	file := files[0]
	if real, err := filepath.EvalSymlinks(file); err == nil {
		file = real // a link stays one
	}
	text, err := os.ReadFile(file)
	mode := os.FileMode(0o600) // it may have passwords
	if info, serr := os.Stat(file); serr == nil {
		mode = info.Mode().Perm()
	}
	if errors.Is(err, os.ErrNotExist) {
		text, err = []byte(t.start(file)), nil
	}
	if err != nil {
		return fmt.Errorf("edit configuration: %w", err)
	}
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("edit configuration: %w", err)
	}
	schema, err := t.schema()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, configs.SchemaFile(file)), schema, 0o644); err != nil {
		return fmt.Errorf("edit configuration: %w", err)
	}
	copied := filepath.Join(dir, "."+filepath.Base(file)+".edit.yml")
	if err := os.WriteFile(copied, text, mode); err != nil {
		return fmt.Errorf("edit configuration: %w", err)
	}
	if err := a.editor(cmd, copied); err != nil {
		return errors.Join(err, os.Remove(copied))
	}
	if err := t.flags.Set("config", copied); err != nil {
		return err
	}
	if err := t.flags.Lookup("config").Value.(pflag.SliceValue).Replace([]string{copied}); err != nil {
		return err
	}
	if err := t.check(); err != nil {
		return fmt.Errorf("%w\n%s is as it was; what you wrote is in %s", err, file, copied)
	}
	if err := os.Rename(copied, file); err != nil {
		return fmt.Errorf("edit configuration: %w; what you wrote is in %s", err, copied)
	}
	return nil
}

// editor lets the user edit a file.
func (a *app) editor(cmd *cobra.Command, file string) error {
	words := strings.Fields(os.Getenv("VISUAL"))
	if len(words) == 0 {
		words = strings.Fields(os.Getenv("EDITOR"))
	}
	if len(words) == 0 {
		words = []string{"vi"}
		if runtime.GOOS == "windows" {
			words = []string{"notepad"}
		}
	}
	run := exec.CommandContext(cmd.Context(), words[0], append(words[1:], file)...)
	run.Stdin, run.Stdout, run.Stderr = a.stdin, a.stdout, a.stderr
	if err := run.Run(); err != nil {
		return fmt.Errorf("run the editor %s (set by VISUAL or EDITOR): %w", words[0], err)
	}
	return nil
}

// authtokenCommand is join under the name that users of ngrok look for.
func (a *app) authtokenCommand() *cobra.Command {
	cmd := a.joinCommand()
	cmd.Use = "add-authtoken TOKEN"
	cmd.Short = `Join an edge with an invite, as "wgexpose join" does`
	cmd.Example = "  wgexpose config add-authtoken wgx1_…"
	return cmd
}
