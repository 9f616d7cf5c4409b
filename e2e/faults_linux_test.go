package e2e

import (
	"os"
	"sync"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/lab"
)

// wholeTable has every fault as often and as long as it takes to tell numbers;
// otherwise each comes once or twice, and nothing is asked of the clock.
var wholeTable = os.Getenv("WGEXPOSE_FAULTS") == "all"

// fullPatience bounds every wait. It is no expectation.
const fullPatience = 2 * time.Minute

// often is how often something is done in the whole table, or else.
func often(whole, else_ int) int {
	if wholeTable {
		return whole
	}
	return else_
}

func long(whole, else_ time.Duration) time.Duration {
	if wholeTable {
		return whole
	}
	return else_
}

// TestFaults breaks what is between visitors and a service in every way of the
// table, while somebody types in an ssh session and a download runs, and prints
// what came of it.
func TestFaults(t *testing.T) {
	lab.Open(t) // skips all of them at once
	var mu sync.Mutex
	var table results
	t.Cleanup(func() { t.Logf("\n%s", table) }) // when all rows have ended
	for _, f := range faults {
		if f.whole && !wholeTable {
			continue
		}
		t.Run(f.name, func(t *testing.T) {
			if !wholeTable { // mostly they wait
				t.Parallel()
			}
			s := startScene(t, f)
			f.run(s)
			r := s.close()
			mu.Lock()
			defer mu.Unlock()
			table = append(table, r)
		})
	}
}
