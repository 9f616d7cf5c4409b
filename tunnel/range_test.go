package tunnel

import (
	"strings"
	"testing"
)

func TestPortRange(t *testing.T) {
	for s, want := range map[string]PortRange{
		"20000-29999": {20000, 29999}, "1-65535": {1, 65535}, "22": {22, 22}, "22-22": {22, 22},
	} {
		r, err := ParsePortRange(s)
		if err != nil || r != want {
			t.Errorf("%q is %v, %v; want %v", s, r, err, want)
		}
		n := 0
		for p := range 1 << 16 {
			if r.Contains(uint16(p)) {
				n++
				if uint16(p) < r.First || uint16(p) > r.Last {
					t.Errorf("%v contains %d", r, p)
				}
			}
		}
		if n != r.Len() || n == 0 {
			t.Errorf("%v contains %d ports, Len is %d", r, n, r.Len())
		}
		if again, err := ParsePortRange(r.String()); err != nil || again != r {
			t.Errorf("%v is printed as %q", r, r.String())
		}
	}
	for s, want := range map[string]string{
		"": "no range", "-": "no range", "1-": "no range", "-1": "no range", "a-b": "no range", "0-10": "no range", "1-65536": "no range",
		"1-2-3": "no range", " 1-2": "no range", "1 - 2": "no range", "+1-2": "no range", "0x1-2": "no range",
		"30000-20000": "write 20000-30000", strings.Repeat("9", 1000): "no range",
	} {
		if r, err := ParsePortRange(s); err == nil || !strings.Contains(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%q: %v, %v; want an error with %q", s, r, err, want)
		}
	}
	var zero PortRange
	if zero.Len() != 0 || zero.Contains(0) || zero.Contains(1) || zero.String() != "" {
		t.Error("the zero range has ports")
	}
	if backwards := (PortRange{2, 1}); backwards.Len() != 0 || backwards.Contains(1) || backwards.Contains(2) {
		t.Error("a range that ends before it starts has ports")
	}
}

func FuzzParsePortRange(f *testing.F) {
	for _, s := range []string{"20000-29999", "1", "2-1", "-", "1-65536"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParsePortRange(s)
		if err != nil {
			return
		}
		if again, err := ParsePortRange(r.String()); err != nil || again != r || r.Len() < 1 || !r.Contains(r.First) || !r.Contains(r.Last) {
			t.Fatalf("%q gives %v, then %v, %v", s, r, again, err)
		}
	})
}
