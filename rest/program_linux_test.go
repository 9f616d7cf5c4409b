package rest

import (
	"runtime"
	"strings"
	"testing"
)

// TestUnwritten: nothing but what the file has is let go.
func TestUnwritten(t *testing.T) {
	const sample = `00400000-01070000 r-xp 00000000 fe:00 77 /opt/a b/wgexpose (deleted)
Size:              12736 kB
Anonymous:             0 kB
Swap:                  0 kB
VmFlags: rd ex mr mw me
01070000-01e61000 r--p 00c70000 fe:00 77 /opt/a b/wgexpose (deleted)
Anonymous:             0 kB
Swap:                  0 kB
01e61000-01e71000 r--p 01a61000 fe:00 77 /opt/a b/wgexpose (deleted)
Anonymous:            64 kB
Swap:                  0 kB
01e71000-01e81000 r--p 01a71000 fe:00 77 /opt/a b/wgexpose (deleted)
Anonymous:             0 kB
Swap:                  4 kB
01e81000-01f87000 rw-p 01a81000 fe:00 77 /opt/a b/wgexpose (deleted)
Anonymous:             0 kB
Swap:                  0 kB
01f87000-01f97000 r--s 01b87000 fe:00 77 /opt/a b/wgexpose (deleted)
Anonymous:             0 kB
Swap:                  0 kB
01f97000-01fa7000 r--p 01b97000 fe:00 77 /opt/a b/wgexpose (deleted)
7f24d4eae000-7f24d5200000 r--p 00000000 fe:00 78 /usr/lib/libc.so.6
Anonymous:             0 kB
Swap:                  0 kB
7f251ba07000-7f251ba27000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
Swap:                  0 kB
`
	all, err := readMappings(strings.NewReader(sample))
	if err != nil || len(all) != 9 {
		t.Fatalf("%d mappings, %v", len(all), err)
	}
	got := unwritten(all, 0x400800)
	if len(got) != 2 || got[0].from != 0x400000 || got[0].to != 0x1070000 || got[1].from != 0x1070000 {
		t.Errorf("%+v", got)
	}
	if got := unwritten(all, 0x7f251ba07010); len(got) != 0 {
		t.Errorf("of memory without a file: %+v", got)
	}
	if got := unwritten(all, 1); len(got) != 0 {
		t.Errorf("of nothing: %+v", got)
	}
	for _, broken := range []string{"x-y r-xp 0 fe:00 77\n", "1000-2000 r-xp 0 fe:00 77\nAnonymous: many kB\n"} {
		if _, err := readMappings(strings.NewReader(broken)); err == nil {
			t.Errorf("%q was read", broken)
		}
	}
}

// TestReleaseProgram lets go of the pages of this test, which goes on.
func TestReleaseProgram(t *testing.T) {
	all, err := ownMappings()
	if err != nil {
		t.Fatal(err)
	}
	here, _, _, _ := runtime.Caller(0)
	code := false
	for _, m := range unwritten(all, here) {
		code = code || m.from <= here && here < m.to
	}
	if !code {
		t.Errorf("the code of this test is not found in %+v", all)
	}
	if err := releaseProgram(); err != nil {
		t.Error(err)
	}
}
