package main

import (
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/tunnel"
)

func (a *app) serveCommand() *cobra.Command {
	var name, url string
	var policy *policyFlags
	var pages *pageFlags
	var out output
	var listing, spa bool
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "Share a folder as a web site",
		Long: `Share a folder under a host name of the edge until Ctrl-C. Visitors can read its
files and nothing else: neither ".." nor a symbolic link leads out of it, and hidden
files such as .git and .env are not there for them.

"wgexpose http file:///srv/www" is the same; in the config file, upstream:
file:///srv/www with the keys listing and spa.`,
		Example: `  wgexpose serve .
  wgexpose serve dist --name app --spa
  wgexpose serve /srv/www --listing=false --basic-auth me:secret`,
		Args: exactly("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			dir, err := filepath.Abs(args[0])
			if err != nil {
				return fmt.Errorf("find %s: %w", args[0], err)
			}
			target := filepath.ToSlash(dir)
			if target[0] != '/' {
				target = "/" + target // C:/www
			}
			values := map[string]string{
				"kind": string(tunnel.HTTP), "upstream": "file://" + target,
				"listing": strconv.FormatBool(listing), "spa": strconv.FormatBool(spa),
			}
			if url != "" {
				values["url"] = url
			}
			if err := nameOrURL(name, url); err != nil {
				return err
			}
			pages.set(values)
			out.asked = url
			return a.share(cmd, name, values, policy, out)
		},
	}
	configs.AgentFlags(cmd.Flags())
	cmd.Flags().StringVar(&name, "name", "", "`NAME` under the edge's domain")
	cmd.Flags().StringVar(&url, "url", "", "public `ADDRESS`, such as https://app.example.com")
	cmd.Flags().BoolVar(&listing, "listing", true, "list folders that have no index.html")
	cmd.Flags().BoolVar(&spa, "spa", false, "answer with /index.html for pages that are no file, for single-page apps")
	pages = addPageFlags(cmd.Flags())
	policy = addPolicyFlags(cmd.Flags(), tunnel.HTTP)
	out.flags(cmd)
	takeHabits(cmd.Flags())
	return cmd
}
