package certs

import (
	"crypto/tls"
	"sync"
	"testing"
)

// A domain that is apart limits what the authority vouches for. It has a certificate
// like any other name: when it is in the table.
func TestApart(t *testing.T) {
	for name, table := range map[string][]string{"in the table": {"apart.test", "app.apart.test"}, "not in the table": {"app.apart.test"}} {
		var mu sync.Mutex // guards outcome
		outcome := make(map[string]error)
		m, stop := start(t, Config{
			Mode: Internal, Domain: "apart.test", Apart: true, Storage: t.TempDir(), Allowed: tableOf(table...).has,
			Outcome: func(host string, err error) {
				mu.Lock()
				defer mu.Unlock()
				outcome[host] = err
			},
		})
		if m.Covers("apart.test") {
			t.Errorf("%s: there is a certificate for the domain by itself", name)
		}
		if err := m.Manage(t.Context(), table...); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		for _, host := range []string{"apart.test", "app.apart.test"} {
			wanted := host != "apart.test" || len(table) == 2
			_, err := handshake(t, m, &tls.Config{ServerName: host, InsecureSkipVerify: true})
			if (err == nil) != wanted {
				t.Errorf("%s: %s: %v", name, host, err)
			}
		}
		stop()
		mu.Lock()
		for _, host := range table {
			if err, told := outcome[host]; !told || err != nil {
				t.Errorf("%s: of %s it was told: %v, %v", name, host, told, err)
			}
		}
		mu.Unlock()
	}
}
