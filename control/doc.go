// Package control is the API between an agent and its edge: JSON over HTTP/2
// on the overlay, never on a public socket.
//
//	srv := control.NewServer(overlay, handler, logger)
//	l, _ := stack.ListenTCP(tunnel.ControlPort)
//	err := srv.Serve(ctx, l)
//
//	c := control.NewClient(func(ctx context.Context) (net.Conn, error) {
//		return stack.DialTCP(ctx, netip.AddrPort{}, edge)
//	})
//	reply, err := c.Enroll(ctx, control.EnrollRequest{Key: pub, Name: "laptop"})
//
// # Identity
//
// There are no passwords or cookies. WireGuard lets a peer send packets from
// its own prefix only, so the source address of the connection is the caller:
// [Server] parses it and hands the node id to the [Handler]. A connection from
// an address that is not a node's own is closed unread.
//
// # Calls
//
//	POST /v1/enroll   EnrollRequest  → EnrollReply    an invite's holder becomes an agent
//	PUT  /v1/tunnels  PublishRequest → PublishReply   the whole set that an agent wants served
//	POST /v1/events   AgentEvent ⇄ ServerEvent        JSON lines both ways, as long as both live
//
// HTTP/2 is spoken with prior knowledge (RFC 9113, section 3.3), because the
// event stream sends both ways at once and the calls share its connection.
// Unknown JSON fields and unknown event types are ignored, so that either side
// may be newer; whatever is not JSON of the right shape is refused with
// [CodeBadRequest].
package control
