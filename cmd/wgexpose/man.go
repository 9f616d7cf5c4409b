package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

// keepAngles has <name> stand in the pages, which Markdown takes for HTML and drops.
func keepAngles(cmd *cobra.Command) {
	escape := func(s *string) {
		lines := strings.Split(*s, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, "\t") && !strings.HasPrefix(line, "    ") { // those are shown as they are
				lines[i] = strings.ReplaceAll(line, "<", `\<`)
			}
		}
		*s = strings.Join(lines, "\n")
	}
	escape(&cmd.Short)
	escape(&cmd.Long)
	flag := func(f *pflag.Flag) {
		if !strings.Contains(f.Usage, `\<`) { // one of several commands
			escape(&f.Usage)
		}
	}
	cmd.LocalFlags().VisitAll(flag)
	for _, c := range cmd.Commands() {
		keepAngles(c)
	}
}

func (a *app) manCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "man DIR",
		Short: "Write the manual pages",
		Long: `Write a manual page for each command into a folder, which is made if need be. Pages
in a folder man1 of MANPATH, such as ~/.local/share/man/man1, are found by man.`,
		Example: `  wgexpose man ~/.local/share/man/man1
  man wgexpose-http`,
		Args: exactly("DIR"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return nil, cobra.ShellCompDirectiveFilterDirs
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the same pages whenever they are made
			keepAngles(root)
			header := &doc.GenManHeader{Section: "1", Source: "wgexpose " + buildVersion(), Manual: "wgexpose"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			pages, err := filepath.Glob(filepath.Join(args[0], "wgexpose*.1"))
			if err != nil {
				return fmt.Errorf("write manual pages: %w", err)
			}
			a.hint("wrote %d pages into %s", len(pages), args[0])
			return nil
		},
	}
}
