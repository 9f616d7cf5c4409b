// Package wgexpose puts a private service on the public internet through a
// WireGuard overlay that runs in user space: no root, no TUN device, no kernel
// module.
//
//	wgexpose edge --domain example.com    # on a cloud VM
//	wgexpose http 8089                    # on the machine behind NAT
//
// The program is in cmd/wgexpose; docs/architecture.md says how its packages
// fit together.
package wgexpose
