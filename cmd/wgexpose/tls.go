package main

import (
	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/tunnel"
)

func (a *app) tlsCommand() *cobra.Command {
	var name, url, terminateAt, proxyProtocol string
	var policy *policyFlags
	var out output
	cmd := &cobra.Command{
		Use:   "tls TARGET",
		Short: "Share a TLS service under a host name of the edge",
		Long: `Share a service that speaks TLS, until Ctrl-C. The edge serves it on its HTTPS port,
beside websites, and finds it by the host name that visitors send when they begin
(SNI). Visitors who send none cannot reach it; of those who hide it (ECH) the edge
sees the outer name, and goes by that.

TARGET is a port of this machine (5432), host:port or unix:/path.

With --terminate-at upstream the bytes pass untouched: the target has the
certificate, and the edge cannot read what is sent. With --terminate-at agent this
machine gets a certificate by itself, through the tunnel, and ends TLS; the target
gets plain bytes, and the edge cannot read them either. With --terminate-at edge the
edge has the certificate and ends TLS.

Certificates of this machine come from Let's Encrypt or the authority of --acme-ca,
to whose terms of service --terminate-at agent agrees, or with --certificates
internal from an own authority, whose root "wgexpose ca" prints.`,
		Example: `  wgexpose tls 5432 --url tls://db.example.com
  wgexpose tls 1883 --name mqtt --terminate-at agent
  wgexpose tls 6697 --name irc --terminate-at edge
  wgexpose tls 192.168.1.25:993 --name imap --proxy-protocol v2`,
		Args: exactly("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := map[string]string{"kind": string(tunnel.TLS), "upstream": args[0]}
			set := func(flag, key, value string) {
				if cmd.Flags().Changed(flag) {
					values[key] = value
				}
			}
			set("url", "url", url)
			set("terminate-at", "terminate_at", terminateAt)
			set("proxy-protocol", "proxy_protocol", proxyProtocol)
			if err := nameOrURL(name, url); err != nil {
				return err
			}
			return a.share(cmd, name, values, policy, out)
		},
	}
	configs.AgentFlags(cmd.Flags())
	cmd.Flags().StringVar(&name, "name", "", "`NAME` under the edge's domain")
	cmd.Flags().StringVar(&url, "url", "", "public `ADDRESS`, such as tls://db.example.com")
	cmd.Flags().StringVar(&terminateAt, "terminate-at", "upstream", "where TLS ends: `PLACE` upstream, agent or edge")
	cmd.Flags().StringVar(&proxyProtocol, "proxy-protocol", "", "tell the target the visitor's address with a PROXY header: `VERSION` v1 or v2")
	policy = addPolicyFlags(cmd.Flags(), tunnel.TLS)
	out.flags(cmd)
	takeHabits(cmd.Flags())
	return cmd
}
