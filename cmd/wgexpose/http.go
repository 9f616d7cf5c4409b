package main

import (
	"strconv"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/tunnel"
)

func (a *app) httpCommand() *cobra.Command {
	var name, url, hostHeader, protocol, appName, terminateAt string
	var policy *policyFlags
	var out output
	var verify bool
	var pages *pageFlags
	cmd := &cobra.Command{
		Use:   "http TARGET | --app NAME",
		Short: "Share a web service under a host name of the edge",
		Long: `Share a web service until Ctrl-C. The edge serves it over HTTPS under a host name.

TARGET is a port of this machine (8089), host:port, http://host:port,
https://host:port, unix:/path, or a folder: file:///srv/www (see "wgexpose serve").

Without --name or --url the edge chooses a readable name, and gives the same one
back when the same target is shared again within a day.

Passwords and networks are checked at the edge, before anything reaches this
machine; passwords leave it hashed. Other users of this machine can see command
lines: to keep a password from them, put it into the config file (basic_auth:).

With --terminate-at agent the edge passes bytes on and cannot read them: this machine
gets a certificate by itself, through the tunnel (see "wgexpose tls --help"), and
serves HTTPS. Passwords and rules for headers are refused then, since they need an
edge that sees requests.`,
		Example: `  wgexpose http 8089
  wgexpose http 8089 --name app --compression
  wgexpose http https://192.168.1.10:5001 --url https://nas.example.com --upstream-tls-verify=false
  wgexpose http file:///srv/www
  wgexpose http --app echo
  wgexpose http 50051 --upstream-protocol http2
  wgexpose http localhost:5173 --host-header localhost:5173
  wgexpose http 8089 --name private --terminate-at agent
  wgexpose http 8089 --basic-auth me:secret --cidr-allow 192.0.2.0/24
  wgexpose http 8089 --response-header-add "X-Frame-Options: DENY"`,
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("app") {
				return exactly()(cmd, args)
			}
			return exactly("TARGET")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("app") {
				if appName != "echo" {
					return usagef("--app: there is no app %q; there is: echo", appName)
				}
				args = []string{echoTarget}
			}
			values := map[string]string{"kind": string(tunnel.HTTP), "upstream": args[0]}
			set := func(flag, key, value string) {
				if cmd.Flags().Changed(flag) {
					values[key] = value
				}
			}
			set("url", "url", url)
			set("host-header", "host_header", hostHeader)
			set("upstream-protocol", "upstream_protocol", protocol)
			set("terminate-at", "terminate_at", terminateAt)
			pages.set(values)
			set("upstream-tls-verify", "upstream_tls_verify", strconv.FormatBool(verify))
			if err := nameOrURL(name, url); err != nil {
				return err
			}
			out.asked = url
			return a.share(cmd, name, values, policy, out)
		},
	}
	configs.AgentFlags(cmd.Flags())
	cmd.Flags().StringVar(&name, "name", "", "`NAME` under the edge's domain")
	cmd.Flags().StringVar(&url, "url", "", "public `ADDRESS`, such as https://app.example.com")
	cmd.Flags().StringVar(&hostHeader, "host-header", "", "`HOST` header for the target instead of the visitor's")
	cmd.Flags().StringVar(&protocol, "upstream-protocol", "http1", "what the target speaks: `PROTOCOL` http1, or http2 for gRPC and its like")
	cmd.Flags().StringVar(&terminateAt, "terminate-at", "edge", "where TLS ends: `PLACE` edge, or agent with a certificate of this machine's own, so that the edge cannot read what is sent")
	pages = addPageFlags(cmd.Flags())
	cmd.Flags().StringVar(&appName, "app", "", "share a built-in app instead of a target: `NAME` is echo, which shows what a visitor's request looks like")
	cmd.Flags().BoolVar(&verify, "upstream-tls-verify", true, "check the certificate of an https:// target; for a target on this machine, only if this flag is given")
	policy = addPolicyFlags(cmd.Flags(), tunnel.HTTP)
	out.flags(cmd)
	takeHabits(cmd.Flags())
	return cmd
}
