package localweb

import "testing"

// A name that somebody else may have resolve to this machine is not allowed,
// however much it looks like one of ours.
func TestHosts(t *testing.T) {
	ours := []string{"localhost", "localhost:4040", "LOCALHOST.:1", "127.0.0.1:4040", "127.1.2.3", "[::1]:4040", "[::1]", "[::ffff:127.0.0.1]:1"}
	others := []string{"evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "", "localhost:1:2", "app.localhost", "evil.example:4040", "0.0.0.0.evil.example"}
	named := []string{"box.lan:4040", "BOX.lan.", "192.0.2.5", "192.0.2.5:4040"}
	addresses := []string{"192.0.2.6", "[2001:db8::2]:1"}
	for what, c := range map[string]struct {
		hosts   Hosts
		yes, no [][]string
	}{
		"this machine":  {NewHosts(), [][]string{ours}, [][]string{others, named, addresses}},
		"named":         {NewHosts("Box.lan", "192.0.2.5"), [][]string{ours, named}, [][]string{others, addresses}},
		"all addresses": {NewHosts("0.0.0.0"), [][]string{ours, addresses}, [][]string{others}},
		"all, IPv6":     {NewHosts("::"), [][]string{ours, addresses}, [][]string{others}},
	} {
		for want, lists := range map[bool][][]string{true: c.yes, false: c.no} {
			for _, list := range lists {
				for _, host := range list {
					if got := c.hosts.Allow(host); got != want {
						t.Errorf("%s: host %q: %v", what, host, got)
					}
				}
			}
		}
	}
}
