package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/cobra"

	"github.com/wgexpose/wgexpose/configs"
	"github.com/wgexpose/wgexpose/tunnel"
)

func (a *app) tcpCommand() *cobra.Command {
	var name, port, proxyProtocol string
	var policy *policyFlags
	var out output
	cmd := &cobra.Command{
		Use:   "tcp TARGET",
		Short: "Share a TCP service on a port of the edge",
		Long: `Share a TCP service until Ctrl-C. The edge serves it on a public port.

TARGET is a port of this machine (22), host:port or, with a --name, unix:/path.

Without --port the edge chooses one of its range, and gives the same one back to
the same name.`,
		Example: `  wgexpose tcp 22
  wgexpose tcp 192.168.1.10:22 --port 20022 --name nas-ssh
  wgexpose tcp 25 --proxy-protocol v2
  wgexpose tcp 22 --cidr-allow 192.0.2.0/24`,
		Args: exactly("TARGET"),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := map[string]string{"kind": string(tunnel.TCP), "upstream": args[0]}
			if _, only, err := net.SplitHostPort(port); err == nil {
				port = only // --remote-addr of ngrok, which has the edge's name, too
			}
			if cmd.Flags().Changed("port") {
				values["port"] = port
			}
			if cmd.Flags().Changed("proxy-protocol") {
				values["proxy_protocol"] = proxyProtocol
			}
			if name == "" {
				var err error
				if name, err = tcpName(args[0]); err != nil {
					return err
				}
			}
			return a.share(cmd, name, values, policy, out)
		},
	}
	configs.AgentFlags(cmd.Flags())
	cmd.Flags().StringVar(&name, "name", "", "`NAME` of the tunnel (default tcp-<port of the target>)")
	cmd.Flags().StringVar(&port, "port", "", "public `PORT` (default: the edge chooses)")
	cmd.Flags().StringVar(&proxyProtocol, "proxy-protocol", "", "tell the target the visitor's address with a PROXY header: `VERSION` v1 or v2")
	policy = addPolicyFlags(cmd.Flags(), tunnel.TCP)
	out.flags(cmd)
	takeHabits(cmd.Flags())
	return cmd
}

// tcpName is the name of a tunnel that was given none.
func tcpName(target string) (string, error) {
	upstream, err := tunnel.ParseUpstream(tunnel.TCP, target)
	if err != nil {
		return "", usagef("TARGET: %s", strings.TrimPrefix(err.Error(), "target "))
	}
	if upstream.Port == 0 {
		return "", usagef("%s has no port to name the tunnel after; give it a --name", upstream)
	}
	return fmt.Sprintf("tcp-%d", upstream.Port), nil
}
