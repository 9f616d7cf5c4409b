package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
)

func (a *app) importCommand() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Turn a config file of ngrok, frp or cloudflared into one for \"up\"",
		Long: `Read ngrok.yml, frpc.toml or cloudflared's config.yml, and print a wgexpose.yml
that shares the same. What cannot be carried over is listed on standard error,
each with the reason. Nothing is changed, and passwords stay as they were in the
file.`,
		Example: `  wgexpose import ~/.config/ngrok/ngrok.yml
  wgexpose import frpc.toml --output ~/.config/wgexpose/wgexpose.yml
  wgexpose import ~/.cloudflared/config.yml > wgexpose.yml`,
		Args: exactly("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readImport(args[0])
			if err != nil {
				return err
			}
			got, err := configs.Import(filepath.Base(args[0]), data)
			if err != nil {
				return wrong(err)
			}
			if output == "" {
				if _, err := a.stdout.Write(got.File); err != nil {
					return err
				}
			} else if err := writeNew(output, got.File); err != nil {
				return err
			}
			if len(got.Left) > 0 {
				a.hint("not carried over from %s:", args[0])
			}
			for _, line := range got.Left {
				a.hint("  %s", printable(line))
			}
			if output != "" {
				a.hint("wrote %s; see it with \"wgexpose config check --config %s\"", output, shellQuote(output))
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to this `FILE`, which must not be there yet")
	return cmd
}

// readImport reads no more than Import takes.
func readImport(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, wrongf("import: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 2<<20))
	if err != nil {
		return nil, wrongf("import: %w", err)
	}
	return data, nil
}

// writeNew writes a file that is not there. It may hold passwords.
func writeNew(name string, data []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return wrongf("%s is there already, and is not written over: name another file, or leave --output out to see the result", name)
	}
	if err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
