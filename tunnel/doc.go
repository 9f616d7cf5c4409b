// Package tunnel has the words that the edge and the agent share: what a
// tunnel is, how things are named, and which overlay address means what. It
// does no I/O.
//
//	overlay, _ := tunnel.NewOverlay(rand.Reader)       // fd5c:93ab:1e77::/48
//	to := overlay.TunnelAddr(node, id)                 // names the tunnel
//	from := overlay.VisitorAddr(edge, visitor.Addr())  // names the visitor
//
// An edge finds the tunnel for a public host name or port in a [Table], which
// never changes once it is made, so that it can be read without locks.
package tunnel
