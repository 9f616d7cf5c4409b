// Package tunnel has the words of the overlay: what is published (Spec), under
// which names and ports, at which overlay addresses, and the Table that the
// edge looks visitors' requests up in.
//
//	o, _ := tunnel.NewOverlay(rand.Reader)
//	edge := o.NodeAddr(1)
//	app := o.TunnelAddr(node, id) // whoever dials it means that tunnel
//
// One idea: an address says all that a packet needs to say. Every node owns
// one /80 of the overlay's /48, and the last 48 bits of an address are a kind
// and a value:
//
//	| fd + 40-bit global id | node id 32 | kind 16 | value 32 |
//	kind 0  the node itself            value 1
//	kind 1  a tunnel                   value = tunnel id
//	kind 2  a visitor that cannot travel as itself
//	kind 4  a private IPv4 behind it   value = that IPv4
package tunnel
