package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/wgexpose/wgexpose/agent"
	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/statedir"
)

// maxTokenFile is the most that is read in search of a token, in bytes.
const maxTokenFile = 16 << 10

func (a *app) joinCommand() *cobra.Command {
	var tokenFile, name string
	cmd := &cobra.Command{
		Use:   "join [TOKEN|-]",
		Short: "Join an edge with an invite",
		Long: `Join an edge with the token that "wgexpose edge invite" printed. Once is enough:
the state directory remembers the edge.

The token is an argument, a line on standard input (-), the content of
--token-file, or WGEXPOSE_TOKEN. If joining was interrupted, run it again with
the same token.`,
		Example: `  wgexpose join wgx1_…
  ssh vm wgexpose edge invite | wgexpose join -
  wgexpose join --token-file /run/secrets/wgexpose`,
		Args: atMost(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := configs.LoadAgent(cmd.Flags())
			if err != nil {
				return err
			}
			token, err := a.token(args, tokenFile)
			if err != nil {
				return err
			}
			invite, err := keys.ParseInvite(token)
			if err != nil {
				return wrong(err)
			}
			dir, err := statedir.Open(cfg.State)
			if err != nil {
				return err
			}
			ctx, stop := drainOnSignal(cmd.Context())
			defer stop()
			joined, err := agent.Join(ctx, dir, invite, agent.JoinOptions{
				Name:    name,
				Version: buildVersion(),
				Reach:   agent.Reach{Transport: cfg.Transport, Proxy: cfg.Proxy, MTU: cfg.MTU},
				Logger:  a.logger(cfg.LogLevel, cfg.LogFormat),
				Step:    a.step,
			})
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(a.stdout, "joined %s as %s\n", joined.Domain, joined.Name); err != nil {
				return err
			}
			a.hint("Now share something: wgexpose http 8089")
			return nil
		},
	}
	configs.AgentFlags(cmd.Flags())
	cmd.Flags().StringVar(&tokenFile, "token-file", "", "`FILE` that holds the token")
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of this agent (default: that of the invite, or of this machine)")
	return cmd
}

// step tells a person who waits what is being done. Scripts want the result alone.
func (a *app) step(what string) {
	if f, ok := a.stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		a.hint("%s", printable(what))
	}
}

// token finds the invite: the argument or the file, of which only one may be
// given, else the environment.
func (a *app) token(args []string, file string) (string, error) {
	switch {
	case len(args) > 0 && file != "":
		return "", usagef("give the token as an argument or with --token-file, not both")
	case len(args) > 0 && args[0] != "-":
		return args[0], nil
	case len(args) > 0:
		if isTerminal(a.stdin) {
			a.hint("Paste the token and press Enter:")
		}
		return readToken(firstLine{a.stdin}, "standard input")
	case file != "":
		f, err := os.Open(file)
		if err != nil {
			return "", wrongf("read token: %w", err)
		}
		defer f.Close()
		return readToken(f, file)
	}
	if token := os.Getenv("WGEXPOSE_TOKEN"); token != "" {
		return token, nil
	}
	return "", usagef(`no token: give the one that "wgexpose edge invite" printed as an argument, with - on standard input, with --token-file, or in WGEXPOSE_TOKEN`)
}

func readToken(r io.Reader, from string) (string, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxTokenFile+1))
	if err != nil {
		return "", wrongf("read token from %s: %w", from, err)
	}
	if len(data) > maxTokenFile {
		return "", wrongf("%s has more than %d bytes, so it holds no token", from, maxTokenFile)
	}
	token := strings.TrimSpace(string(data))
	if token == "" {
		return "", wrongf("%s is empty, and should hold a token", from)
	}
	return token, nil
}

// firstLine reads up to the end of a line and no further, so that a person at a
// terminal need not end the input.
type firstLine struct{ r io.Reader }

func (f firstLine) Read(p []byte) (int, error) {
	if len(p) > 1 {
		p = p[:1]
	}
	n, err := f.r.Read(p)
	if n == 1 && p[0] == '\n' && err == nil {
		return 0, io.EOF
	}
	return n, err
}
