// Package keys holds WireGuard keys, the files they live in, and the invites
// that carry one to a new agent:
//
//	key, err := keys.LoadOrCreate(filepath.Join(dir, "agent.key"))
//	fmt.Println(key)          // [private key]
//	fmt.Println(key.Public()) // as `wg pubkey` prints it
//
// Private and public keys are different types, so that the one is never passed
// for the other, and a [Private] does not print: not through fmt, log/slog,
// encoding/json or a text template, and not as an unexported field of
// something else that is printed. Its bytes come out in one way,
// [Private.Expose], which is easy to search for.
package keys
