// Package relay joins two connections until both have ended, and is careful
// about how they end.
//
//	upstream, err := net.Dial("tcp", "127.0.0.1:22")
//	…
//	stats, err := relay.Copy(ctx, visitor, upstream)
//
// What one side does, the other side sees:
//
//   - An end (FIN, EOF) on one side half-closes the other, and the opposite
//     direction goes on. A server that answers only after its client's EOF
//     works.
//   - A reset on one side is a reset on the other. A cut-off download never
//     looks like a whole one.
//   - A side that stops reading holds up its own direction only.
//
// A connection says what it can through small optional interfaces:
//
//	CloseWrite() error    half-close (*net.TCPConn, *tls.Conn, netstack.Conn)
//	Abort()               close with a reset, forget what is unsent
//	WhenReadable(f) bool  tell whether Read would not block, or call f once
//	                      it may not; then an idle direction has no goroutine
//	Through()             the connection that it stands for, and a function to tell
//	                      of what is read from there in place of Read
//	Broken() error        the error that broke the connection, or nil; never
//	                      blocks
//
// Kernel TCP and Unix sockets need none of these on Unix systems; their
// descriptors are asked directly.
package relay
