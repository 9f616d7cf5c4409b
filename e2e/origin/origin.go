// Package origin has the servers that tests share through tunnels. They listen
// on loopback addresses that the system chooses, end with the test, and do what
// the test tells them and no more.
//
//	web := origin.StartWeb(t)
//	… share web.Addr() …
//	web.Events <- "first"        // the next event of /events, on its way when this returns
package origin

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"testing"
)

func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// Data returns n bytes that look random, the same each time.
func Data(n int64) io.Reader {
	block, err := aes.NewCipher(make([]byte, 16))
	if err != nil {
		panic(err) // the key has a good length
	}
	return io.LimitReader(&cipher.StreamReader{
		S: cipher.NewCTR(block, make([]byte, aes.BlockSize)), R: zeros{},
	}, n)
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Sum reads r to its end and returns its length and SHA-256.
func Sum(r io.Reader) (n int64, sum string, err error) {
	h := sha256.New()
	n, err = io.Copy(h, r)
	return n, hex.EncodeToString(h.Sum(nil)), err
}
