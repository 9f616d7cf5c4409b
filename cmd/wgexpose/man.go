package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

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
