// Package edge is the public process: it owns the sockets that visitors reach
// and carries each connection over the overlay to the agent that serves it.
//
//	dir, _ := statedir.Open("/var/lib/wgexpose")
//	https, _ := net.Listen("tcp", ":443")
//	e, err := edge.New(edge.Config{Dir: dir, Domain: "example.com", HTTPS: https, TLS: certs.ACME})
//	err = e.Run(ctx) // until ctx ends, then drains
//
//	admin, _ := edge.OpenAdmin(ctx, dir) // another process: the running edge's socket, or its database
//	invite, err := admin.Invite(ctx, edge.InviteOptions{Name: "laptop"})
//
// # One writer
//
// Whatever changes goes one way, and nobody takes a short cut:
//
//	agents: Enroll, Publish ─┐                            ┌─ WireGuard peers
//	admins: Invite, Revoke … ├─> store ──Watch─> reconcile ┤
//	sweeper, endpoints ──────┘  (compare and swap)        └─ tunnel table, public TCP ports
//
// What a call wants is planned by a pure function from a [snapshot] of the
// store to the operations of one commit. When somebody else was faster, the
// commit conflicts, and the plan is made anew from what is there now. The call
// is answered once reconcile, which reads of the store what has changed, has applied
// the commit's revision: an agent whose
// peer did not exist yet would wait 5 s for WireGuard to try again.
//
// # Lifecycle
//
//	lock ─> keys, database ─> netstack, WireGuard ─> first reconcile ─> serve … ctx ends ─> drain ─> close
//
// The table and the peers stand before the first connection is taken, so a
// restart never answers "unknown host" for a name that it knows. While it
// drains, only the public side has stopped accepting: control and WireGuard go
// on, since running requests need them.
package edge
