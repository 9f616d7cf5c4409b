package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

const wireguardModule = "golang.zx2c4.com/wireguard"

// clockVariable names the file that has the offset of a wrong clock.
const clockVariable = "WGEXPOSE_TEST_CLOCK"

var errNoStamp = errors.New("wireguard-go stamps handshakes in another way than this test knows")

// wrongClock is the program with another clock in its handshakes: it is built
// with a copy of wireguard-go that adds what a file says.
var wrongClock = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp(filepath.Dir(binary), "clock-")
	if err != nil {
		return "", err
	}
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", wireguardModule)
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		return "", err
	}
	module := filepath.Join(dir, "wireguard")
	if err := os.CopyFS(module, os.DirFS(strings.TrimSpace(string(out)))); err != nil {
		return "", err
	}
	file := filepath.Join(module, "tai64n", "tai64n.go")
	source, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	const stamp = "stamp(time.Now())"
	if strings.Count(string(source), stamp) != 1 {
		return "", errNoStamp
	}
	changed := strings.Replace(string(source), stamp, "stamp(time.Now().Add(offset()))", 1)
	changed = strings.Replace(changed, "import (", "import (\n\t\"os\"", 1) + `
func offset() time.Duration {
	text, err := os.ReadFile(os.Getenv("` + clockVariable + `"))
	if err != nil {
		panic(err)
	}
	d, err := time.ParseDuration(string(text))
	if err != nil {
		panic(err)
	}
	return d
}
`
	if err := os.Remove(file); err != nil { // it may be read-only
		return "", err
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return "", err
	}
	mod := filepath.Join(dir, "go.mod")
	for from, to := range map[string]string{"../go.mod": mod, "../go.sum": filepath.Join(dir, "go.sum")} {
		text, err := os.ReadFile(from)
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(to, text, 0o600); err != nil {
			return "", err
		}
	}
	if out, err := exec.Command("go", "mod", "edit", "-replace", wireguardModule+"="+module, mod).CombinedOutput(); err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return build(dir, "-modfile", mod)
})

// setClock makes the agent's clock wrong by d.
func (w *world) setClock(t *testing.T, d time.Duration) {
	t.Helper()
	next := w.clock + ".next" // the agent may be reading
	if err := os.WriteFile(next, []byte(d.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, w.clock); err != nil {
		t.Fatal(err)
	}
}
