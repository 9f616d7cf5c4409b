// Package wg is a WireGuard device in user space with typed peers.
//
//	dev, err := wg.Open(wg.Config{
//		Key:  key,                 // keys.Private
//		Tun:  stack.Device(),      // any tun.Device
//		Bind: wg.UDP(netip.MustParseAddrPort("[::]:51820")),
//	})
//	…
//	err = dev.SetPeer(wg.Peer{Key: peer, Endpoint: addr, AllowedIPs: prefixes})
//	err = dev.Handshake(peer)
//
// The device is wireguard-go's. This package speaks its configuration
// protocol, so that no one else has to, and brings a [UDPBind] of its own: one
// that listens on exactly the address it is given, moves many datagrams with
// one system call, and keeps going where segmentation offload does not. Where
// UDP does not pass, [Streams] carry the same packets; [Paths] joins several
// UDP addresses and streams into one bind, and finds out which of a peer's
// addresses works.
//
// Facts about wireguard-go in this package's comments were read in the version
// of go.mod, in the file that the comment names.
package wg
