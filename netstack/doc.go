// Package netstack is a TCP/IPv6 stack in user space that speaks to
// WireGuard as a TUN device would, without a TUN device.
//
//	s, err := netstack.Open(netstack.Config{Addr: node})
//	dev, err := wg.Open(wg.Config{Tun: s.Device(), …})
//	s.ForwardTCP(func(r *netstack.Request) {
//		upstream, err := net.Dial("tcp", "127.0.0.1:8089")
//		if err != nil {
//			r.Reject()
//			return
//		}
//		c, err := r.Accept()
//		…
//	})
//
// One idea: gVisor's TCP on one side, wireguard-go's packet batches on the
// other, and a [link endpoint] between them that owns no goroutine. What TCP
// sends waits in a fair queue until WireGuard's reader calls Read, which cuts
// large segments into packets right inside WireGuard's buffers. What
// WireGuard decrypts comes in through Write, which joins what belongs
// together and hands it to TCP.
//
// The stack has one address of its own and takes packets for every address
// (promiscuous), because in the overlay the destination names a tunnel; it
// may send from every address (spoofing), because the source is the
// visitor's. WireGuard's allowed addresses decide which of a peer's packets
// get this far.
//
// [link endpoint]: https://pkg.go.dev/gvisor.dev/gvisor/pkg/tcpip/stack#LinkEndpoint
package netstack
