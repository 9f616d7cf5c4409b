// Package keys holds WireGuard keys, the files that keep them, and invites.
//
//	key, err := keys.LoadOrCreate("/var/lib/wgexpose/edge.key")
//	fmt.Println(key.Public()) // as `wg pubkey` prints it
//
// Private and public keys are different types, so that neither is taken for
// the other, and a private key has no way into a log, an error or a JSON
// document: [Private.Expose] is the one way out.
package keys
