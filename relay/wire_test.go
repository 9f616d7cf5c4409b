package relay

import (
	"bytes"
	"io"
	"slices"
	"testing"
)

// record is what a TLS record looks like from below.
func record(body []byte) []byte {
	return slices.Concat([]byte{23, 3, 3, byte(len(body) >> 8), byte(len(body))}, body)
}

// TestWireReads: however much the kernel has, and whatever was read before, the same
// bytes come out, and no Read goes beyond a record.
func TestWireReads(t *testing.T) {
	var sent []byte
	var ends []int // of records
	for i, size := range []int{0, 1, 5, 300, 16_401, 16_401, 16_401, 16_401, 0, 0, 2, 16_401, 7, 9_000, 65_535, 1} {
		sent = append(sent, record(bytes.Repeat([]byte{byte(i)}, size))...)
		ends = append(ends, len(sent))
	}
	for _, c := range []struct {
		name   string
		before int // of sent, read before
		wide   int // of sent, read before Widen; -1: all
		size   int // of what is read into
	}{
		{"never wide", 0, -1, 20_000},
		{"wide", 0, 0, 20_000},
		{"wide later", 310, 400, 20_000},
		{"by the byte", 3, 320, 1},
		{"by seven", 0, 0, 7},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := tcpPair(t)
			go func() {
				far.Write(sent[c.before:])
				far.CloseWrite()
			}()
			w := NewWire(near, sent[:c.before])
			var got []byte
			for p := make([]byte, c.size); ; {
				if c.wide >= 0 && len(got) >= c.wide {
					w.Widen()
				}
				n, err := w.Read(p)
				if n > 0 && w.kernel != nil {
					next, _ := slices.BinarySearch(ends, len(got)+1)
					if len(got)+n > ends[next] {
						t.Fatalf("a read of %d bytes at %d goes beyond the record that ends at %d", n, len(got), ends[next])
					}
				}
				got = append(got, p[:n]...)
				if err == io.EOF {
					break
				} else if err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes that are not the %d that were sent", len(got), len(sent))
			}
			if w.in != nil {
				t.Error("it holds a buffer while nothing waits in it")
			}
		})
	}
}
